//! `scumble methods`, `scumble attacks`, `scumble guards` and `scumble metrics`: what there is to choose from.

use scumble_attack::attacks;
use scumble_diffusion::guards::ALL;
use scumble_erase::methods;
use scumble_eval::metrics::{self, Metric};
use serde_json::json;

use crate::{
    args::ListArgs,
    failure::{Failure, Outcome},
    output,
};

/// Lists the methods as a table, or as an array of objects.
pub(crate) fn methods(args: ListArgs) -> Result<Outcome, Failure> {
    if args.print.json {
        let list: Vec<_> = methods::ALL
            .iter()
            .map(|m| {
                json!({
                    "id": m.id, "paper": m.paper, "moves": m.moves, "needs": m.needs, "several": m.several,
                    "seconds": m.seconds, "peak_mb": m.peak_mb,
                    "published_evaluations": m.published_evaluations,
                })
            })
            .collect();
        output::json(&list.into())?;
        return Ok(Outcome::Done);
    }
    for m in methods::ALL {
        output::data(&format!("{}\n    {}\n    moves    {}\n    needs    {}", m.id, m.paper, m.moves, m.needs))?;
        output::data(&format!(
            "    several  {}",
            if m.several { "takes several concepts at once" } else { "one concept at a time" }
        ))?;
        if let (Some(seconds), Some(peak)) = (m.seconds, m.peak_mb) {
            output::data(&format!("    cost     {seconds:.1} s, {peak:.0} MiB for `church` on the miniature, on the CPU"))?;
        }
    }
    Ok(Outcome::Done)
}

/// Lists the attacks as a table, or as an array of objects.
pub(crate) fn attacks(args: ListArgs) -> Result<Outcome, Failure> {
    if args.print.json {
        let list: Vec<_> = attacks::ALL
            .iter()
            .map(|a| json!({ "id": a.id, "paper": a.paper, "access": a.access, "finds": a.finds, "step": a.step, "cases": a.cases }))
            .collect();
        output::json(&list.into())?;
        return Ok(Outcome::Done);
    }
    for a in attacks::ALL {
        output::data(&format!(
            "{}\n    {}\n    access   {}\n    finds    {}\n    step     {}",
            a.id, a.paper, a.access, a.finds, a.step
        ))?;
    }
    Ok(Outcome::Done)
}

/// Lists the guards as a table, or as an array of objects.
pub(crate) fn guards(args: ListArgs) -> Result<Outcome, Failure> {
    if args.print.json {
        let one = |g: &scumble_diffusion::guards::Known| json!({"id": g.id, "paper": g.paper, "changes": g.changes, "cost": g.cost, "needs_adapters": g.rule.is_none()});
        output::json(&ALL.iter().map(one).collect::<Vec<_>>().into())?;
        return Ok(Outcome::Done);
    }
    for g in ALL {
        output::data(&format!("{}\n    {}\n    changes  {}", g.id, g.paper, g.changes))?;
        output::data(&format!("    cost     {} evaluations of the U-Net a step", g.cost))?;
    }
    Ok(Outcome::Done)
}

/// Lists the metrics as a table, or as an array of objects.
pub(crate) fn metrics(args: ListArgs) -> Result<Outcome, Failure> {
    if args.print.json {
        let one = |m: &Metric| {
            json!({
                "id": m.id, "name": m.name, "meaning": m.meaning, "unit": m.unit, "better": m.better, "axis": m.axis,
                "convention": m.convention, "source": m.source,
            })
        };
        output::json(&metrics::ALL.iter().map(one).collect::<Vec<_>>().into())?;
        return Ok(Outcome::Done);
    }
    for m in metrics::ALL {
        output::data(&format!("{}\n    {}\n    {}, {} is better; {}", m.id, m.meaning, m.unit, m.better, m.axis))?;
        output::data(&format!("    counted  {}\n    after    {}", m.convention, m.source))?;
    }
    Ok(Outcome::Done)
}
