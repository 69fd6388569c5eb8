//! The program as a child, its files, and the server it talks to.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use http::Method;
use serde_json::Value;
use tower_ploton::mock::{FakePloton, FakeServer};

use crate::{ARGS, support::KEY};

/// A folder of its own, a fake Ploton, and the program's files.
pub(crate) struct Job {
    pub(crate) folder: PathBuf,
    pub(crate) fake: FakePloton,
    server: FakeServer,
    pub(crate) plan: &'static str,
}

impl Job {
    pub(crate) async fn new(name: &str, prompts: &str) -> Self {
        let fake = FakePloton::new()
            .accept_key(KEY)
            .concurrent_tasks(NonZeroU32::new(50).unwrap())
            .task_duration(Duration::from_millis(50));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bulk_{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("prompts.txt"), prompts).unwrap();
        let server = fake.listen().await.unwrap();
        Self {
            folder,
            fake,
            server,
            plan: "60000/50",
        }
    }

    pub(crate) fn start(&self, more: &[&str]) -> Child {
        let path = |name| self.folder.join(name).to_str().unwrap().to_owned();
        let url = format!("{}/v1", self.server.url());
        let mut args = vec!["bulk_submit".to_owned(), path("prompts.txt")];
        args.extend(["--out".to_owned(), path("results.jsonl")]);
        args.extend(["--base-url", &url, "--plan", self.plan].map(str::to_owned));
        args.extend(more.iter().map(|more| (*more).to_owned()));
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_program", "--nocapture"])
            .env(ARGS, serde_json::to_string(&args).unwrap())
            .env("PLOTON_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn run(&self, more: &[&str]) -> Run {
        Run(self.start(more).wait_with_output().unwrap())
    }

    /// POSTs that reached the fake.
    pub(crate) fn posts(&self) -> usize {
        let attempts = self.fake.attempts();
        let posts = attempts
            .iter()
            .filter(|attempt| attempt.method == Method::POST);
        posts.count()
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap();
        // Half a line may be at the end.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
    }

    /// Each line of the prompts has one task, and one result that names it.
    pub(crate) fn assert_each_once(&self) {
        let created: HashMap<_, _> = self
            .fake
            .tasks()
            .into_iter()
            .map(|task| (task.prompt, task.id))
            .collect();
        assert_eq!(
            created.len(),
            self.fake.tasks().len(),
            "one was created twice"
        );
        let prompts = fs::read_to_string(self.folder.join("prompts.txt")).unwrap();
        let expected: BTreeMap<u64, &String> = (1..)
            .zip(prompts.lines().map(|prompt| &created[prompt]))
            .collect();
        let results = self.lines("results.jsonl");
        let told: BTreeMap<u64, String> = results
            .iter()
            .map(|line| {
                (
                    line["line"].as_u64().unwrap(),
                    line["id"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        assert_eq!(told.len(), results.len(), "one was told twice");
        assert!(told.iter().map(|(n, id)| (*n, id)).eq(expected), "{told:?}");
        assert_eq!(created.len(), told.len());
    }
}

/// A run that came to its end.
pub(crate) struct Run(pub(crate) Output);

impl Run {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().expect("it was not killed")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// The number behind `name =` in the summary.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let text = String::from_utf8_lossy(&self.0.stdout).into_owned();
        let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
        let count = lines.find_map(|(key, count)| (key == name).then(|| count.parse().unwrap()));
        count.unwrap_or_else(|| panic!("{text}\n{}", self.stderr()))
    }
}
