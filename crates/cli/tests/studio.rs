//! The studio as a browser, and as whoever should not get in, meets it: over HTTP on the loopback
//! address. (The pages themselves are tried in Chromium: bench/studio/README.md.)

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// A studio that is running, and ends with the test.
struct Studio {
    child: Child,
    port: u16,
    token: String,
}

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }
}

impl Studio {
    fn open(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_scumble"))
            .args(["studio", "--json", "--no-open", "--quiet", "--folder"])
            .arg(folder)
            .env("SCUMBLE_CACHE", folder.join(".cache"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let url = said["url"].as_str().unwrap();
        let rest = url.strip_prefix("http://127.0.0.1:").unwrap();
        let (port, token) = rest.split_once("/?token=").unwrap();
        Self {
            child,
            port: port.parse().unwrap(),
            token: token.into(),
        }
    }

    /// Sends these bytes; the answer. The head may lack what a test wants to lack.
    fn raw(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        // A body that is refused may not be read to its end.
        let _ = stream.write_all(body);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let end = all
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or(all.len());
        let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
        let mut body = all.split_off((end + 4).min(all.len()));
        if head.contains("transfer-encoding: chunked") {
            body = unchunked(&body);
        }
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        Answer {
            status: status.unwrap_or(0),
            head,
            body,
        }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn cookie(&self) -> String {
        format!("scumble-{}={}", self.port, self.token)
    }

    fn get(&self, path: &str) -> Answer {
        let (host, cookie) = (self.host(), self.cookie());
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        );
        self.raw(&head, b"")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        let (host, cookie, body) = (self.host(), self.cookie(), body.to_string());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {cookie}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.raw(&head, body.as_bytes())
    }

    /// Waits until the newest job has ended; its state as the page has it.
    fn wait(&self) -> String {
        let began = Instant::now();
        loop {
            let page = self.get("/part/jobs").text();
            let state = page
                .split("class=\"job ")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .unwrap_or_default()
                .to_owned();
            if !["", "waiting", "running"].contains(&state.as_str()) {
                return state;
            }
            assert!(began.elapsed() < Duration::from_secs(240), "{page}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The run in a folder whose name begins like this.
fn run_of(folder: &Path, start: &str) -> PathBuf {
    let mut runs = fs_err::read_dir(folder).unwrap().flatten();
    let run = runs.find(|run| run.file_name().to_string_lossy().starts_with(start));
    run.unwrap().path()
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
    whole
}

#[test]
fn only_who_has_the_key_gets_in() {
    let folder = support::folder();
    let studio = Studio::open(folder.path());
    let host = studio.host();
    let cookie = studio.cookie();
    let ask = |head: String| {
        studio
            .raw(&(head + "Connection: close\r\n\r\n"), b"")
            .status
    };
    // No key, a wrong one, the key in the wrong place.
    assert_eq!(ask(format!("GET /erase HTTP/1.1\r\nHost: {host}\r\n")), 403);
    assert_eq!(
        ask(format!("GET /?token=00 HTTP/1.1\r\nHost: {host}\r\n")),
        403
    );
    let wrong = cookie.replace(&studio.token, &"0".repeat(studio.token.len()));
    assert_eq!(
        ask(format!(
            "GET /erase HTTP/1.1\r\nHost: {host}\r\nCookie: {wrong}\r\n"
        )),
        403
    );
    assert_eq!(
        ask(format!(
            "GET /erase?token={} HTTP/1.1\r\nHost: {host}\r\n",
            studio.token
        )),
        403
    );
    // Another name for this machine: DNS rebinding.
    assert_eq!(
        ask(format!(
            "GET /erase HTTP/1.1\r\nHost: evil.example:{}\r\nCookie: {cookie}\r\n",
            studio.port
        )),
        403
    );
    // Another page in the same browser.
    assert_eq!(
        ask(format!(
            "GET /draw?prompt=x HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nOrigin: http://evil.example\r\n"
        )),
        403
    );
    assert_eq!(
        ask(format!(
            "GET /erase HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nSec-Fetch-Site: cross-site\r\n"
        )),
        403
    );
    assert_eq!(
        ask(format!(
            "POST /job/1/cancel HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nContent-Length: 0\r\n"
        )),
        403
    );
    // A form that another page sends here, with the cookie along.
    let body = json!({"concept": "church", "method": "uce"}).to_string();
    let sent = |origin: &str, kind: &str| {
        let head = format!(
            "POST /do/erase HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nOrigin: {origin}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        studio.raw(&head, body.as_bytes()).status
    };
    assert_eq!(sent("http://evil.example", "application/json"), 403);
    assert_eq!(sent("null", "text/plain"), 403);
    let other = format!("http://127.0.0.1:{}", studio.port ^ 1);
    assert_eq!(sent(&other, "application/json"), 403);
    assert!(!studio.get("/part/jobs").text().contains("class=\"job "));
    // The address that was printed: a cookie that scripts cannot read, and no key in the address after.
    let welcome = studio.raw(
        &format!(
            "GET /?token={} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
            studio.token
        ),
        b"",
    );
    assert_eq!(welcome.status, 200);
    assert!(welcome.head.contains("httponly") && welcome.head.contains("samesite=strict"));
    // And with it everything.
    let page = studio.get("/erase");
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'")
    );
    assert!(page.text().contains("Erase a concept"));
}

#[test]
fn nothing_outside_of_the_folder_is_handed_out() {
    let outer = support::folder();
    let folder = outer.path().join("runs");
    fs_err::create_dir_all(&folder).unwrap();
    fs_err::write(outer.path().join("secret.txt"), "secret").unwrap();
    fs_err::write(folder.join("note.txt"), "fine").unwrap();
    let studio = Studio::open(&folder);
    assert_eq!(studio.get("/file/note.txt").text(), "fine");
    for path in [
        "/file/../secret.txt",
        "/file/%2e%2e/secret.txt",
        "/file/..%2fsecret.txt",
        "/file//etc/passwd",
        "/file/%2fetc%2fpasswd",
        "/file/.studio/settings.json",
        "/file/.studio/lock",
        "/file/note.txt%00.png",
    ] {
        let answer = studio.get(path);
        assert_ne!(answer.status, 200, "{path}");
        assert!(!answer.text().contains("secret\n"), "{path}");
    }
    for name in ["..", "%2e%2e", ".studio", "..%2fsecret.txt"] {
        let answer = studio.post(&format!("/run/{name}/throw"), &json!({}));
        assert_ne!(answer.status, 200, "{name}");
    }
    assert!(outer.path().join("secret.txt").is_file());
}

#[test]
fn it_stays_alive_under_what_is_too_much() {
    let folder = support::folder();
    let studio = Studio::open(folder.path());
    let (host, cookie) = (studio.host(), studio.cookie());
    let body = vec![b'x'; 8 << 20];
    let head = format!(
        "POST /do/erase HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {cookie}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    assert!([413, 0].contains(&studio.raw(&head, &body).status));
    for wrong in [
        "nonsense",
        "GET",
        "GET / HTTP/9.9\r\n\r\n",
        "\0\0\0\r\n\r\n",
    ] {
        studio.raw(&format!("{wrong}\r\n\r\n"), b"");
    }
    // Pages that listen and never read, and heads that never end.
    let lazy: Vec<TcpStream> = (0..20)
        .map(|i| {
            let mut stream = TcpStream::connect(("127.0.0.1", studio.port)).unwrap();
            let end = if i % 2 == 0 { "\r\n" } else { "" };
            let head = format!("GET /events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n{end}");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let form = json!({"concept": "church", "method": "uce", "no_judge": true});
    assert_eq!(studio.post("/do/erase", &form).status, 200);
    assert_eq!(studio.wait(), "done");
    drop(lazy);
    // A thousand, forty at a time; the walk in the browser sends them all at once.
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(studio.get("/assets/studio.css").status, 200);
                }
            });
        }
    });
    assert_eq!(studio.get("/library").status, 200);
}

/// Names are text, whoever gave them.
#[test]
fn hostile_names_are_text() {
    let folder = support::folder();
    let evil = "<img src=x onerror=alert(1)>";
    let run = folder.path().join(evil);
    fs_err::create_dir_all(&run).unwrap();
    let record = json!({"finished": true, "plan": {"command": "erase", "method": evil, "model": evil, "concepts": [
        {"name": evil, "prompts": [{"erase": evil, "anchor": evil, "from": null}]}]}, "model": evil, "device": evil,
        "result": {"method": evil, "concept": evil, "edit": evil, "seconds": 1.0, "evaluations": 1}});
    fs_err::write(run.join("run.json"), record.to_string()).unwrap();
    fs_err::write(run.join("grid.png"), "x").unwrap();
    fs_err::write(run.join(format!("{evil}.md")), "x").unwrap();
    fs_err::write(folder.path().join(format!("{evil}.safetensors")), "x").unwrap();
    let studio = Studio::open(folder.path());
    let form = json!({"concept": evil, "method": "uce", "anchor": evil, "no_judge": true});
    assert_eq!(studio.post("/do/erase", &form).status, 200);
    assert_eq!(studio.wait(), "failed");
    for page in [
        "/erase?concept=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E",
        "/look?prompt=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E",
        "/compare",
        "/attack",
        "/library",
        "/models",
        "/part/jobs",
    ] {
        let page = studio.get(page);
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(!page.text().contains("<img src=x"), "{}", page.text());
    }
    let library = studio.get("/library").text();
    assert!(library.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert_eq!(studio.post("/model", &json!({"model": evil})).status, 422);
}

#[test]
fn from_a_word_to_a_file_for_others_and_back() {
    let folder = support::folder();
    let studio = Studio::open(folder.path());
    let refused = studio.post("/do/erase", &json!({"concept": "", "method": "uce"}));
    assert_eq!(refused.status, 422);
    assert!(refused.json()["hint"].is_string());
    let form = json!({"concept": "church", "method": "uce", "variant": "fixed", "no_judge": true});
    let command = studio.post(
        "/part/command",
        &json!({"kind": "erase", "concept": "church", "method": "uce"}),
    );
    let runs = folder.path().display();
    assert_eq!(
        command.json()["command"],
        format!("scumble erase church --method uce --runs-dir {runs}")
    );
    assert_eq!(studio.post("/do/erase", &form).status, 200);
    assert_eq!(studio.wait(), "done");
    let run = fs_err::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with("uce-church-"))
        .unwrap();
    // The same noise without and with the edit: other pictures; at strength 0 the model's own.
    let draw = |edits: &str| {
        let drawn = studio.get(&format!(
            "/draw?prompt=a+church&seed=3&steps=6&edits={edits}"
        ));
        assert_eq!(drawn.status, 200, "{}", drawn.text());
        drawn.body
    };
    let own = draw("");
    assert!(own.starts_with(b"\x89PNG") && own == draw(&format!("{run}:0")));
    assert!(
        own != draw(&format!("{run}:1")) && draw(&format!("{run}:1")) == draw(&format!("{run}:1"))
    );
    for page in ["/look", "/compare", "/attack", "/library", "/models"] {
        let page = studio.get(page);
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(!page.text().contains("this is a bug"), "{}", page.text());
    }
    assert!(studio.get("/library").text().contains(&run));
    let export = json!({"edit": run, "form": "delta"});
    assert_eq!(studio.post("/do/export", &export).status, 200);
    assert_eq!(studio.wait(), "done");
    assert!(
        folder
            .path()
            .join(&run)
            .join("church-uce-delta.safetensors")
            .is_file()
    );
    // What is thrown away comes back.
    assert_eq!(
        studio.post(&format!("/run/{run}/throw"), &json!({})).status,
        200
    );
    assert!(!folder.path().join(&run).exists());
    assert_eq!(
        studio.post(&format!("/run/{run}/back"), &json!({})).status,
        200
    );
    assert!(folder.path().join(&run).join("run.json").is_file());
}

/// What it will take is said before anything is queued; detectors are the user's, as on the command
/// line.
#[test]
fn estimates_and_detectors() {
    let folder = support::folder();
    let studio = Studio::open(folder.path());
    let erase = json!({"kind": "erase", "concept": "church", "method": "uce"});
    let said = studio.post("/part/estimate", &erase);
    assert_eq!(said.status, 200, "{}", said.text());
    let text = said.json()["estimate"].as_str().unwrap().to_owned();
    assert!(
        text.contains("of memory") && text.contains("evaluations"),
        "{text}"
    );
    let export = json!({"kind": "export", "edit": "x", "form": "lora"});
    assert_eq!(studio.post("/part/estimate", &export).status, 422);
    let judge = support::root().join("models/emoji-judges/object");
    let mut form = json!({"concept": "church", "method": "uce", "variant": "fixed", "detector": judge, "label": "church"});
    assert_eq!(studio.post("/do/erase", &form).status, 200);
    assert_eq!(studio.wait(), "done");
    let run = run_of(folder.path(), "uce-church-");
    let record = fs_err::read_to_string(run.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert!(
        record["details"]["detectors"]
            .to_string()
            .contains("church"),
        "{record}"
    );
    assert!(run.join("pictures/before/00000.png").is_file());
    // One that does not know the word ends the job with the command line's own words.
    form["label"] = "temple".into();
    assert_eq!(studio.post("/do/erase", &form).status, 200);
    assert_eq!(studio.wait(), "failed");
    let page = studio.get("/part/jobs").text();
    assert!(page.contains("it knows no label `temple`"), "{page}");
}

/// Whoever watches a training sees what the model draws on the way, and gets the edit and the cost
/// that it has unwatched.
#[test]
fn a_training_that_is_watched_is_the_same() {
    let folder = support::folder();
    let studio = Studio::open(folder.path());
    let options = json!({"iterations": 8, "trajectories": 2, "sampling_steps": 4});
    let form = json!({"concept": "church", "method": "esd", "no_judge": true, "options": options});
    let job = studio.post("/do/erase", &form).json()["job"]
        .as_u64()
        .unwrap();
    assert_eq!(studio.wait(), "done");
    for step in [2, 4, 6] {
        let picture = studio.get(&format!("/live/{job}/{step}"));
        assert_eq!(picture.status, 200, "step {step}");
        assert!(picture.body.starts_with(b"\x89PNG"), "step {step}");
    }
    assert_eq!(studio.get(&format!("/live/{job}/8")).status, 404);
    let watched = run_of(folder.path(), "esd-church-");
    let alone = support::folder();
    let line = "erase church --method esd --no-judge --set iterations=8 --set trajectories=2 --set sampling_steps=4 --output-dir out";
    support::line(alone.path(), line).done();
    let alone = alone.path().join("out");
    let read = |folder: &Path, name: &str| fs_err::read(folder.join(name)).unwrap();
    assert!(read(&watched, "edit.safetensors") == read(&alone, "edit.safetensors"));
    let cost = |folder: &Path| -> Value {
        let record: Value = serde_json::from_slice(&read(folder, "run.json")).unwrap();
        record["result"]["evaluations"].clone()
    };
    assert!(cost(&alone).is_u64() && cost(&watched) == cost(&alone));
}

/// The command that the page shows for the newest job, as words.
fn shown_command(studio: &Studio) -> Vec<String> {
    let page = studio.get("/part/jobs").text();
    let after = page
        .split("<summary>command</summary><pre>")
        .nth(1)
        .unwrap();
    let line = after.split("</pre>").next().unwrap().replace("&#x2f;", "/");
    line.split_whitespace().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_run_goes_on_on_the_command_line_and_back() {
    let folder = support::folder();
    let studio = Studio::open(folder.path());
    let options = json!({"iterations": 60, "trajectories": 2, "sampling_steps": 4});
    let form = json!({"concept": "church", "method": "esd", "no_judge": true, "options": options});
    let job = studio.post("/do/erase", &form).json()["job"]
        .as_u64()
        .unwrap();
    let command = shown_command(&studio);
    let began = Instant::now();
    while studio.get(&format!("/live/{job}/15")).status != 200 {
        assert!(began.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    studio.kill();
    let run = run_of(folder.path(), "esd-church-");
    assert!(!run.join("edit.safetensors").exists());
    let elsewhere = support::folder();
    let ended = support::scumble(elsewhere.path(), &command).done();
    assert!(ended.stderr.contains("60"), "{ended:?}");
    assert!(run.join("edit.safetensors").exists());
    assert!(!elsewhere.path().join("scumble-out").exists());

    // And what was begun there is found here, not done again.
    let studio = Studio::open(folder.path());
    assert_eq!(studio.wait(), "done");
    let page = studio.get("/library").text();
    assert_eq!(page.matches("class=\"card entry\"").count(), 1, "{page}");
}

#[test]
fn files_come_in_by_their_path_and_edits_from_nowhere_else() {
    let folder = support::folder();
    let outer = support::folder();
    let studio = Studio::open(folder.path());
    let edit = support::edit(&support::miniature(), "unet", 0.02, |name| {
        name.contains("attn2.to_k.weight")
    });
    let file = outer.path().join("friend.safetensors");
    edit.save(&file).unwrap();
    let taken = |path: &Path| studio.post("/file-in", &json!({"path": path}));
    assert_eq!(taken(&file).json()["name"], "friend.safetensors");
    assert!(studio.get("/compare").text().contains("friend.safetensors"));
    let refused = |path: &Path, words: &str| {
        let answer = taken(path);
        assert!(
            answer.status == 422 && answer.text().contains(words),
            "{}",
            answer.text()
        );
    };
    refused(&file, "already");
    refused(&outer.path().join("absent.safetensors"), "no such file");
    let pickle = outer.path().join("model.ckpt");
    fs_err::write(&pickle, b"\x80\x02").unwrap();
    refused(&pickle, "never read");
    let judge = support::root().join("models/emoji-judges/object/model.safetensors");
    refused(&judge, "no change of a model");

    // A page names edits of its folder alone.
    for outside in [
        file.display().to_string(),
        "../friend.safetensors".into(),
        ".studio".into(),
    ] {
        let attack = json!({"edit": outside, "attack": "random"});
        for (place, form) in [
            ("/do/attack", attack),
            ("/do/export", json!({"edit": outside, "form": "lora"})),
        ] {
            let answer = studio.post(place, &form);
            assert!(
                answer.status == 422 && answer.text().contains("no edit"),
                "{place} {outside}"
            );
        }
        let wish = outside.replace('/', "%2F");
        assert_eq!(
            studio.get(&format!("/draw?prompt=a&edits={wish}")).status,
            422
        );
    }
    let shown = studio.get("/part/drawing?prompt=a%20church&edits=friend.safetensors:0.5&seed=3");
    let command = shown.json()["command"].as_str().unwrap().to_owned();
    assert!(
        command.starts_with("scumble generate 'a church' --edit /")
            && command.contains("friend.safetensors:0.5 --seed 3"),
        "{command}"
    );
    for run in ["..", "nothing"] {
        assert_eq!(studio.get(&format!("/rate?run={run}")).status, 422);
    }
}

#[test]
fn killed_in_the_middle_it_goes_on() {
    let folder = support::folder();
    let studio = Studio::open(folder.path());
    let second = Command::new(env!("CARGO_BIN_EXE_scumble"))
        .args(["studio", "--no-open", "--folder"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another studio is open"));
    for concept in ["church", "dog"] {
        let form = json!({"concept": concept, "method": "uce", "no_judge": true});
        assert_eq!(studio.post("/do/erase", &form).status, 200);
    }
    // At once: the first has hardly begun.
    studio.kill();
    let studio = Studio::open(folder.path());
    assert_eq!(studio.wait(), "done");
    let done = studio
        .get("/part/jobs")
        .text()
        .matches("class=\"job done\"")
        .count();
    assert_eq!(done, 2);
    // Asked for again it is found, not done again.
    let form = json!({"concept": "dog", "method": "uce", "no_judge": true});
    assert_eq!(studio.post("/do/erase", &form).status, 200);
    assert_eq!(studio.wait(), "done");
}
