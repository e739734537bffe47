//! What somebody wants done, whoever says it: the command line, an evaluation, a browser. A request is
//! complete in itself, and no part of it is read from text that was made for a terminal.

mod attack;
mod erase;
mod evaluate;
mod export;
mod generate;
mod parts;
mod report;
mod train;

pub use self::{
    attack::AttackRequest,
    erase::{EraseRequest, JudgingRequest, Unknown, WordingRequest},
    evaluate::{AttackChoice, EvaluateRequest},
    export::{ExportRequest, Form},
    generate::{GenerateRequest, SizeCondition},
    parts::{
        DetectorsRequest, DrawingRequest, ModelRequest, OutputRequest, RUNS, ReadingRequest, listed,
    },
    report::ReportRequest,
    train::TrainRequest,
};
