//! Several processes, one plan: workers that share it through a Redis, while that and one of them are killed.
//!
//! `cargo run --example fleet -- --workers 4 --seconds 20` starts the workers, a `redis-server` of its own and a fake Ploton,
//! all on loopback; with `--redis URL` it takes a Redis that is there, and leaves it alone. The fake refuses whoever sends
//! faster than the plan, fails now and then, and counts: nothing may be refused, and no task be created twice.

use std::{ffi::OsString, num::NonZeroU32, process::ExitCode};

use clap::{Arg, ArgMatches, Command, value_parser};
use tower::BoxError;
use tower_ploton::Plan;

mod show;
mod store;
mod worker;
mod workers;

/// 1,000 requests a minute, for all workers together.
const PLAN: Plan = Plan::Production;
/// Of all workers: they are one account.
const KEY: &str = "pk_test_4f9d0c2b7a6e1583";

/// Something was refused, created twice, or not created.
const NOT_AS_PROMISED: u8 = 1;
/// It could not begin, or go on.
const BROKEN: u8 = 2;
/// As shells say of a program that Ctrl-C stopped.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match run(std::env::args_os()) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error}");
            BROKEN.into()
        }
    }
}

fn run(args: impl IntoIterator<Item = OsString>) -> Result<u8, BoxError> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        // Help, or what is wrong with the arguments.
        Err(message) => {
            message.print()?;
            return Ok(u8::try_from(message.exit_code()).unwrap_or(BROKEN));
        }
    };
    if let Some(("keeper", matches)) = matches.subcommand() {
        return store::keep(matches.get_one("port").copied().unwrap_or_default()).map(|()| 0);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let code = match matches.subcommand() {
        Some(("worker", matches)) => runtime.block_on(worker::run(&worker_of(matches)?)),
        _ => runtime.block_on(show::run(show::Options {
            workers: number(&matches, "workers"),
            seconds: number(&matches, "seconds"),
            redis: matches.get_one("redis").cloned(),
        })),
    };
    // What hangs must not keep the program.
    runtime.shutdown_background();
    code
}

fn command() -> Command {
    let number = |name: &'static str, default: &'static str, range, help: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(value_parser!(u32).range(range))
            .help(help)
    };
    let required = |name: &'static str| Arg::new(name).long(name).required(true);
    let first = required("first").value_parser(value_parser!(u64));
    Command::new("fleet")
        .about(
            "Workers that share one plan through a Redis, while that and one of them are killed.",
        )
        .after_help(AFTER)
        .args_conflicts_with_subcommands(true)
        .arg(number(
            "workers",
            "4",
            1..=32,
            "Processes that share the plan",
        ))
        .arg(number("seconds", "20", 10..=600, "How long they send"))
        .arg(
            Arg::new("redis")
                .long("redis")
                .value_name("URL")
                .help("A Redis that is there, in the place of one that is started and killed"),
        )
        // This program, as its own children.
        .subcommand(
            Command::new("keeper")
                .hide(true)
                .arg(required("port").value_parser(value_parser!(u16))),
        )
        .subcommand(
            Command::new("worker")
                .hide(true)
                .arg(required("number").value_parser(value_parser!(u32)))
                .arg(first)
                .arg(required("ploton"))
                .arg(required("redis"))
                .arg(required("scope")),
        )
}

fn number(matches: &ArgMatches, name: &str) -> u32 {
    matches.get_one(name).copied().unwrap_or_default()
}

fn worker_of(matches: &ArgMatches) -> Result<worker::Options, BoxError> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    Ok(worker::Options {
        number: number(matches, "number"),
        first: matches.get_one("first").copied().unwrap_or_default(),
        ploton: text("ploton"),
        redis: text("redis"),
        scope: text("scope").parse()?,
    })
}

/// Requests a second that the plan allows.
fn pace() -> f64 {
    f64::from(NonZeroU32::get(PLAN.requests_per_minute())) / 60.0
}

const AFTER: &str = "\
The redis-server is the one in PATH, or what REDIS_SERVER names.

Exit code: 0 if each task was created once and nothing was refused, 1 if not, 2 if it could not begin or go on, 130 after
Ctrl-C.";
