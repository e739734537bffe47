//! `scumble erase`: an erasure is asked for, watched and printed. What it does is
//! `scumble_study::erase`'s.

mod print;

use scumble_study::{erase, request::EraseRequest};

use crate::{
    args::EraseArgs,
    cost,
    failure::{Failure, Outcome},
    host,
    progress::{self, Progress},
};

pub(crate) fn run(args: &EraseArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let progress = Progress::new(args.print.quiet).telling(args.verbose);
    let around = host::here();
    if args.cost.estimate {
        let found = EraseRequest::try_from(args)
            .and_then(|request| erase::estimate(&request, around.heard_by(&progress)));
        progress.finish();
        cost::print(&found?, args.print.json)?;
        return Ok(Outcome::Done);
    }
    let finished = EraseRequest::try_from(args)
        .and_then(|request| erase::perform(&request, around.heard_by(&progress)));
    progress.finish();
    let (result, details) = finished?;
    print::report(args, &result, &details)?;
    Ok(Outcome::Done)
}
