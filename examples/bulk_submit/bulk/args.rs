//! What the user wants.

use std::{env, ffi::OsString, num::NonZeroU32, path::PathBuf};

use clap::{Arg, ArgAction, Command, error::ErrorKind, value_parser};
use tower_ploton::{ApiKey, BaseUrl, Plan};

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) prompts: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) base_url: BaseUrl,
    /// `None` with `--fake`, until there is one.
    pub(crate) key: Option<ApiKey>,
    /// Runs against a fake Ploton.
    pub(crate) fake: bool,
    pub(crate) json_lines: bool,
    /// Sends what may have been created too long ago for the server to know.
    pub(crate) force: bool,
    /// Follows the tasks to their end.
    pub(crate) wait: bool,
    /// Counts at the start what runs already.
    pub(crate) count: bool,
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args)?;
    let path = |name: &str| {
        matches
            .get_one::<PathBuf>(name)
            .cloned()
            .unwrap_or_default()
    };
    let flag = |name: &str| matches.get_flag(name);
    let prompts = path("prompts");
    let json_lines = flag("json-lines")
        || prompts
            .extension()
            .is_some_and(|kind| kind == "jsonl" || kind == "ndjson");
    let mut wrong = |message: String| command.error(ErrorKind::ValueValidation, message);
    let key = if flag("fake") {
        None
    } else {
        let key =
            env::var(KEY).map_err(|_| wrong(format!("{KEY} is not set; --fake needs none")))?;
        Some(ApiKey::parse(&key).map_err(|error| wrong(format!("{KEY}: {error}")))?)
    };
    let get = matches.get_one::<Plan>("plan").copied();
    let plan = get.unwrap_or(Plan::Prototyping);
    let base_url = matches.get_one::<BaseUrl>("base-url").cloned();
    Ok(Options {
        prompts,
        out: path("out"),
        plan,
        base_url: base_url.unwrap_or_default(),
        key,
        fake: flag("fake"),
        json_lines,
        force: flag("force"),
        wait: flag("wait"),
        count: !flag("no-count"),
    })
}

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        let flag = Arg::new(name).long(name).action(ArgAction::SetTrue);
        flag.help(help)
    };
    Command::new("bulk_submit")
        .about("Creates a task for each line of a file, each exactly once, however often it is stopped and begun again.")
        .after_help(AFTER)
        .arg(
            Arg::new("prompts")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("One prompt a line, or JSON lines with a \"prompt\" each"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .required(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Where results are added, one JSON line for each task; the journal is FILE.journal"),
        )
        .arg(
            Arg::new("plan")
                .long("plan")
                .default_value("prototyping")
                .value_parser(plan)
                .help("prototyping, production, or REQUESTS/TASKS: requests a minute and tasks at once"),
        )
        .arg(
            Arg::new("base-url")
                .long("base-url")
                .value_name("URL")
                .value_parser(|url: &str| BaseUrl::parse(url))
                .help("Where the API is, in the place of https://api.ploton.ai/v1"),
        )
        .arg(flag("fake", "Runs against a fake Ploton on a loopback port"))
        .arg(flag("json-lines", "Reads JSON lines, whatever the file is called"))
        .arg(flag("wait", "Follows the tasks to their end"))
        .arg(flag("force", "Sends again what was sent more than 23 hours ago and is without an answer: it may be created twice"))
        .arg(flag("no-count", "Does not list at the start what runs already"))
}

fn plan(text: &str) -> Result<Plan, String> {
    match text {
        "prototyping" => return Ok(Plan::Prototyping),
        "production" => return Ok(Plan::Production),
        _ => {}
    }
    let number = |text: &str| text.parse::<NonZeroU32>().ok();
    let both = text.split_once('/');
    let both = both.and_then(|(requests, tasks)| Some((number(requests)?, number(tasks)?)));
    let Some((requests_per_minute, concurrent_tasks)) = both else {
        return Err(
            "a plan is prototyping, production, or two numbers such as 6000/400".to_owned(),
        );
    };
    Ok(Plan::Enterprise {
        requests_per_minute,
        concurrent_tasks,
    })
}

const KEY: &str = "PLOTON_API_KEY";
const AFTER: &str = "\
The same command, given again, goes on where it was stopped. Keep the file's name and its lines as they are: they make the
idempotency keys. One at a time may run with the same FILE.

Exit code: 0 if every line has its task, 1 if some have none, 2 if it could not begin or go on, 130 after Ctrl-C.";
