//! The studio: a page in the user's own browser over the same requests as the command line.
//!
//! A server on the loopback address alone, for one person on one machine. What it shows is what lies
//! in a folder of runs, what it does are [`scumble_study`]'s requests, one run after the other and
//! exports beside them; its own state is a file for each job ([`jobs`]), so that it can be killed at any moment. Pictures to look at
//! are drawn by a thread of their own ([`paint`]). *Knows* pages, jobs and HTTP. *Does not know* models,
//! methods or metrics beyond their lists.

mod about;
mod app;
mod commands;
mod estimates;
mod events;
mod forms;
mod jobs;
mod library;
mod notes;
mod pages;
mod paint;
mod ratings;
mod routes;
mod security;
mod settings;
mod trash;
mod wish;
mod worker;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use scumble_study::{Failure, Place};

use crate::{app::App, jobs::Jobs};

/// What a studio is started with.
pub struct Options {
    /// The port; one that is free if 0.
    pub port: u16,
    /// The folder of runs that it shows and into which it writes.
    pub folder: PathBuf,
}

/// Serves the studio until `stopped` says so; `ready` is told its address once it answers.
///
/// # Errors
/// If the folder or the port cannot be used, or another studio is at work in the folder.
pub fn serve(
    options: &Options,
    place: Place,
    ready: &mut dyn FnMut(&str) -> Result<(), Failure>,
    stopped: fn() -> bool,
) -> Result<(), Failure> {
    fs_err::create_dir_all(&options.folder)?;
    let jobs = Jobs::open(&options.folder)?;
    // Runs and drawings come from several threads: none of them may be one of the pool's own.
    let _ = rayon::ThreadPoolBuilder::new().build_global();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|e| Failure::new(format!("--port {}: {e}", options.port)))?;
        let port = listener.local_addr()?.port();
        let app = Arc::new(App::new(options.folder.clone(), place, port, jobs)?);
        let workers = [worker::start(&app, false)?, worker::start(&app, true)?];
        let painter = paint::start(&app)?;
        ready(&app.url())?;
        let asked = Arc::clone(&app);
        let until = async move {
            while !stopped() {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            asked.stop();
        };
        let served = axum::serve(listener, routes::router(&app))
            .with_graceful_shutdown(until)
            .await;
        app.stop();
        drop(painter);
        // A run stops after its present step and keeps what it has.
        for worker in workers {
            let _ = worker.join();
        }
        served.map_err(Failure::from)
    })
}
