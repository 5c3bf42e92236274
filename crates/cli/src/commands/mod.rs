//! One file per command.

mod advise;
mod batch;
mod bench;
mod chat;
mod compare;
mod completions;
mod config;
mod distortion;
mod experiment;
mod explain;
mod help;
mod info;
mod man;
mod methods;
mod models;
mod profile;
mod pull;
mod reference;
mod report;
mod results;
mod run;
mod serve;
mod tokenize;

use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// What the program can do.
#[derive(Subcommand)]
pub(crate) enum Command {
    Compare(compare::Arguments),
    Experiment(Box<experiment::Arguments>),
    Report(report::Arguments),
    Results(results::Arguments),
    Advise(advise::Arguments),
    Bench(bench::Arguments),
    Distortion(distortion::Arguments),
    Run(run::Arguments),
    Chat(chat::Arguments),
    Serve(Box<serve::Arguments>),
    Pull(pull::Arguments),
    Models(models::Arguments),
    Info(info::Arguments),
    Explain(explain::Arguments),
    Methods(methods::Arguments),
    Profile(profile::Profiling),
    TrainScorer(profile::Training),
    Tokenize(tokenize::Arguments),
    Config(config::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
    Help(help::Arguments),
    #[command(hide = true)]
    Reference(reference::Arguments),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        match self {
            Command::Compare(arguments) => arguments.run(),
            Command::Experiment(arguments) => arguments.run(),
            Command::Report(arguments) => arguments.run().map(done),
            Command::Results(arguments) => arguments.run().map(done),
            Command::Advise(arguments) => arguments.run().map(done),
            Command::Bench(arguments) => arguments.run(),
            Command::Distortion(arguments) => arguments.run().map(done),
            Command::Run(arguments) => arguments.run(),
            Command::Chat(arguments) => arguments.run(),
            Command::Serve(arguments) => arguments.run().map(done),
            Command::Pull(arguments) => arguments.run().map(done),
            Command::Models(arguments) => arguments.run().map(done),
            Command::Explain(arguments) => arguments.run().map(done),
            Command::Info(arguments) => arguments.run().map(done),
            Command::Methods(arguments) => arguments.run().map(done),
            Command::Profile(arguments) => arguments.run().map(done),
            Command::TrainScorer(arguments) => arguments.run().map(done),
            Command::Tokenize(arguments) => arguments.run().map(done),
            Command::Config(arguments) => arguments.run().map(done),
            Command::Completions(arguments) => arguments.run().map(done),
            Command::Man(arguments) => arguments.run().map(done),
            Command::Help(arguments) => arguments.run().map(done),
            Command::Reference(arguments) => arguments.run().map(done),
        }
    }
}
