//! The collection of quirks that is kept beside the checkout, where it is there and Python runs: its own stand-in and its
//! own workspace, against what its table says is right.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::bench::eventually;

struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The collection, or the reason why it is left out.
fn cases() -> Result<PathBuf, &'static str> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    if !cases.join("fake_openai.py").exists() {
        return Err("../shared/cases is not there");
    }
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if python.is_ok_and(|status| status.success()) { Ok(cases) } else { Err("python3 is not there") }
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// The collection's workspace with agents of models only, which ask at `port`.
fn workspace(cases: &Path, port: u16) -> Content {
    let text = |path: &Path| std::fs::read_to_string(path).expect("a file of the collection");
    let settings = text(&cases.join("workspace/caxton.toml")).replace("127.0.0.1:9900", &format!("127.0.0.1:{port}"));
    let settings =
        settings.replace("name = \"bugs\"", "name = \"demo\"").replace("processes = true", "processes = false");
    let mut content = with_tool(Content::default().file("caxton.toml", settings));
    for entry in std::fs::read_dir(cases.join("workspace/agents")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        if name.starts_with("m-") {
            // Its tools are processes; which tool is called does not matter to a provider.
            let agent = text(&path).replace("\"counter\"", "\"csv-reader\"").replace("\"noprops\"", "\"csv-reader\"");
            content = content.file(&format!("agents/{name}"), agent);
        }
    }
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_collection_of_quirks_passes() {
    let cases = match cases() {
        Ok(cases) => cases,
        Err(why) => return println!("left out: {why}"),
    };
    let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
    let python = Command::new("python3")
        .arg(cases.join("fake_openai.py").canonicalize().expect("a path"))
        .arg(port.to_string())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _python = Python(python.expect("python3 runs"));
    eventually("the stand-in listens", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
        .await;
    let bench = Bench::new(&[]).await;
    bench.deploy(&workspace(&cases, port), 0, &Content::default(), "first").await;

    for (quirk, answer) in [
        ("cap", "ok"),
        ("notools", "ok"),
        ("noids", "done after 3"),
        ("reasoning", "thought through"),
        ("newname", "ok"),
        ("strict", "ok"),
        ("onesystem", "ok"),
        ("echo", "ok"),
    ] {
        assert_eq!(bench.answer_of(quirk).await, answer, "{quirk}");
    }
    assert!(bench.answer_of("sameindex").await.starts_with("2 results"));
    let all = tokio::join!(bench.answer_of("budget"), bench.answer_of("budget"), bench.answer_of("budget"));
    assert_eq!(all, ["late, but here"; 3].map(str::to_owned).into());

    let (status, waiting) = bench.ask_quirk("fixedid").await;
    assert_eq!(status, 202, "{waiting}");
    let [first] = bench.approvals().await.try_into().expect("one waits");
    assert_eq!(bench.approve(&first).await.0, 202);
    assert_eq!(bench.approve(&first).await.0, 404, "a second time it fits nothing");
    let [second] = bench.approvals().await.try_into().expect("the next call waits");
    assert_ne!(first, second);
    bench.stop().await;
}
