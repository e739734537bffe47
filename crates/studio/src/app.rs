//! What every part of the studio has at hand.

use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use scumble_study::{Failure, Listener, Place};

use crate::{
    about::Abouts, events::Events, jobs::Jobs, library::Library, notes::Notes, settings::Settings,
    wish::Order,
};

/// Bytes of the secret in the address.
const SECRET: usize = 24;

/// The studio.
pub(crate) struct App {
    /// The folder of runs.
    pub(crate) folder: PathBuf,
    /// What the program brings, and where things lie.
    pub(crate) place: Place,
    /// The port it listens at.
    pub(crate) port: u16,
    /// What whoever may come in knows.
    pub(crate) token: String,
    /// What is said to open pages.
    pub(crate) events: Events,
    /// What lies in the folder.
    pub(crate) library: Library,
    /// What is known of models.
    pub(crate) abouts: Abouts,
    /// What is said of the jobs at work.
    pub(crate) notes: Notes,
    /// Held by whoever makes an estimate.
    pub(crate) estimating: Mutex<()>,
    jobs: Mutex<Jobs>,
    settings: Mutex<Settings>,
    orders: mpsc::Sender<Order>,
    waiting: Mutex<Option<mpsc::Receiver<Order>>>,
    stopped: AtomicBool,
}

impl App {
    pub(crate) fn new(
        folder: PathBuf,
        place: Place,
        port: u16,
        jobs: Jobs,
    ) -> Result<Self, Failure> {
        let (orders, waiting) = mpsc::channel();
        let settings = Settings::read(&folder)?;
        Ok(Self {
            library: Library::new(&folder),
            folder,
            place,
            port,
            token: secret()?,
            events: Events::new(),
            abouts: Abouts::default(),
            notes: Notes::default(),
            estimating: Mutex::default(),
            jobs: Mutex::new(jobs),
            settings: Mutex::new(settings),
            orders,
            waiting: Mutex::new(Some(waiting)),
            stopped: AtomicBool::new(false),
        })
    }

    /// The address that opens it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    pub(crate) fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders a drawing.
    pub(crate) fn order(&self, order: Order) -> Result<(), Failure> {
        self.orders
            .send(order)
            .map_err(|_| Failure::new("the studio is closing"))
    }

    /// The orders, for the one thread that draws.
    pub(crate) fn take_orders(&self) -> Option<mpsc::Receiver<Order>> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Asks everything to end.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.events.close();
    }

    /// Whether somebody wants a job ended that is at work.
    pub(crate) fn is_ended(&self, job: u64) -> bool {
        self.jobs().get(job).is_some_and(|job| job.ending)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A secret that nobody can guess, in hexadecimal digits.
fn secret() -> Result<String, Failure> {
    let mut bytes = [0; SECRET];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(format!("the system gives no random numbers: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Nobody listens to a picture or an estimate; they end with the studio.
pub(crate) struct Unheard<'a>(pub(crate) &'a App);

impl Listener for Unheard<'_> {
    fn stage(&self, _name: &str, _total: usize, _done: usize) {}

    fn step(&self, _done: usize, _message: Option<String>) {}

    fn note(&self, _text: &str) {}

    fn interrupted(&self) -> bool {
        self.0.is_stopped()
    }
}
