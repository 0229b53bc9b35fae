//! A PostgreSQL server of the measurement's own, durable as it is by default, on loopback and for as long as its guard.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Whom it runs as where the measurement runs as root, which PostgreSQL refuses: `nobody`.
const UNPRIVILEGED: u32 = 65534;

/// A running server.
pub struct Postgres {
    folder: tempfile::TempDir,
    binaries: PathBuf,
    port: u16,
}

/// Where `initdb` is: on the PATH, or where Debian keeps it.
fn binaries() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(debian.map(|version| version.path().join("bin")))
        .find(|place| ["initdb", "postgres", "pg_ctl"].iter().all(|name| place.join(name).is_file()))
        .expect("no PostgreSQL; run: apt-get update && apt-get install -y postgresql")
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Fails where the measurement does not run as root, and need not succeed there.
        let _ = chown(folder.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { folder, binaries: binaries(), port };
        server.run("initdb", &["--username=mcp", "--auth=trust", "--encoding=UTF8", "--no-locale"]);
        let place = server.folder.path().display();
        let options = format!("-p {port} -k {place} -c listen_addresses=127.0.0.1 -c max_wal_size=4GB");
        server.run("pg_ctl", &["start", "-w", "-t", "60", "-l", &format!("{place}/log"), "-o", &options]);
        server
    }

    /// The URL of its one database.
    pub fn url(&self) -> String {
        format!("postgres://mcp@127.0.0.1:{}/postgres", self.port)
    }

    /// The URL of a new database.
    #[cfg(feature = "stores")]
    pub async fn database(&self, name: &str) -> String {
        let mut connection: sqlx::PgConnection = sqlx::Connection::connect(&self.url()).await.unwrap();
        sqlx::Executor::execute(&mut connection, format!("CREATE DATABASE {name}").as_str()).await.unwrap();
        format!("postgres://mcp@127.0.0.1:{}/{name}", self.port)
    }

    fn run(&self, name: &str, arguments: &[&str]) {
        assert!(self.command(name).args(arguments).status().unwrap().success(), "{name} failed");
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.arg("-D").arg(self.folder.path().join("data")).current_dir(self.folder.path());
        command.env_clear().env("TZ", "UTC").stdin(Stdio::null()).stdout(Stdio::null());
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(self.folder.path()).unwrap());
        if owner == UNPRIVILEGED {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _stopped = self.command("pg_ctl").args(["stop", "-m", "immediate", "-w"]).output();
    }
}
