//! A PostgreSQL server of the test's own: found on this machine, run by an unprivileged user from a private directory on a
//! free port of loopback, and stopped when the guard goes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};

/// What to do where there is no server.
const MISSING: &str = "no PostgreSQL server binaries on PATH or in /usr/lib/postgresql/*/bin; \
    run: apt-get update && apt-get install -y postgresql";

/// Whom a server runs as where the tests run as root, which PostgreSQL refuses: `nobody`.
const UNPRIVILEGED: u32 = 65534;

/// A running server. Dropping it stops the server and removes its files.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    binaries: PathBuf,
    port: u16,
    databases: AtomicU32,
}

/// The directory with `initdb` and `postgres`: Debian keeps it off the PATH.
fn binaries() -> PathBuf {
    let mut places: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    places.extend(versions.into_iter().rev());
    let complete =
        |place: &PathBuf| ["initdb", "postgres", "pg_ctl"].iter().all(|name| place.join(name).is_file());
    places.into_iter().find(complete).unwrap_or_else(|| panic!("{MISSING}"))
}

impl Server {
    pub(crate) async fn start() -> Self {
        let binaries = binaries();
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            chown(folder.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { folder, binaries, port, databases: AtomicU32::new(0) };
        server.run(
            "initdb",
            &["--username=mcp", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-locale"],
        );
        server.launch().await;
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.arg("-D").arg(self.data()).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("TZ", "UTC");
        if is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) {
        let output = self.command(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the server on its files, and waits until it answers.
    pub(crate) async fn launch(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c max_connections=200 -c fsync=off",
            self.port,
            self.folder.path().display()
        );
        let log = self.log_file().display().to_string();
        self.run("pg_ctl", &["start", "-w", "-t", "60", "-l", &log, "-o", &options]);
        for _ in 0..200 {
            if self.connect("postgres").await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not answer: {}", self.log());
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Stops every process of the server at once, as a crash would: nothing is flushed.
    pub(crate) fn crash(&self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-w"]);
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://mcp@127.0.0.1:{}/{database}", self.port)
    }

    pub(crate) async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url(database)).await
    }

    /// The URL of a new database, empty or a copy of another that nobody is connected to.
    pub(crate) async fn database(&self, copied: Option<&str>) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let template = copied.map_or_else(String::new, |copied| format!(" TEMPLATE {copied}"));
        let mut connection = self.connect("postgres").await.unwrap();
        if let Some(copied) = copied {
            // A backup waits for nobody, but a copy by template does.
            let sql = format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{copied}'"
            );
            connection.execute(sql.as_str()).await.unwrap();
        }
        connection.execute(format!("CREATE DATABASE {name}{template}").as_str()).await.unwrap();
        connection.close().await.unwrap();
        name
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _stopped = self.command("pg_ctl").args(["stop", "-m", "immediate", "-w"]).output();
    }
}

/// Whether the tests run as root: they own what they make.
fn is_root() -> bool {
    let probe = tempfile::NamedTempFile::new().unwrap();
    fs::metadata(Path::new(probe.path())).unwrap().uid() == 0
}
