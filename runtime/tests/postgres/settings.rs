//! A pooler in between that drops what a connection asks for when it begins.

use mcp_authz_tokio::store::postgres::{OpenError, PostgresStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server::Server;

/// What a new connection says first, without those of its options that `keeps` is not for.
fn begun(message: &[u8], keeps: impl Fn(&str) -> bool) -> Vec<u8> {
    let (version, words) = message.split_at(4);
    let mut words: Vec<_> =
        words.split(|byte| *byte == 0).map(|word| String::from_utf8(word.to_vec()).unwrap()).collect();
    let options = words.iter().position(|word| word == "options").unwrap() + 1;
    let asked = words[options].clone();
    let kept: Vec<_> = asked.split("-c ").filter(|option| !option.is_empty() && keeps(option)).collect();
    words[options] = kept.iter().map(|option| format!("-c {option}")).collect();
    if kept.is_empty() {
        words.drain(options - 1..=options);
    }
    let rest = words.join("\0");
    let length = u32::try_from(rest.len() + 8).unwrap().to_be_bytes();
    [&length, version, rest.as_bytes()].concat()
}

/// A way to the server that passes on only the options that it keeps.
async fn way_to(
    server: &Server,
    database: &str,
    keeps: fn(&str, &str) -> bool,
    name: &'static str,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = format!("postgres://mcp@{}/{database}?sslmode=disable", listener.local_addr().unwrap());
    let url = server.url(database);
    let (_, rest) = url.split_once('@').unwrap();
    let server = rest.split_once('/').unwrap().0.to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move {
                let length = client.read_u32().await.unwrap();
                let mut message = vec![0; usize::try_from(length).unwrap() - 4];
                client.read_exact(&mut message).await.unwrap();
                let message = begun(&message, |option| keeps(option, name));
                server.write_all(&message).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    way
}

// I-G4, I-T4: the database's own defaults may be not to wait for the disk, and to see one moment for a whole transaction.
#[tokio::test]
async fn a_database_that_does_not_get_what_the_store_rests_on_is_refused() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let mut admin = server.connect("postgres").await.unwrap();
    let defaults = [
        ("synchronous_commit", "off"),
        ("default_transaction_isolation", "repeatable read"),
        ("idle_in_transaction_session_timeout", "0"),
        ("lock_timeout", "0"),
        ("plan_cache_mode", "auto"),
    ];
    for (name, default) in defaults {
        let sql = format!("ALTER DATABASE {database} SET {name} = '{default}'");
        sqlx::raw_sql(&sql).execute(&mut admin).await.unwrap();
    }
    let all = way_to(&server, &database, |_, _| true, "").await;
    PostgresStore::open(&all).await.unwrap().close().await;

    let none = way_to(&server, &database, |_, _| false, "").await;
    let error = PostgresStore::open(&none).await.unwrap_err();
    assert!(matches!(error, OpenError::Setting(_)), "{error}");

    for (name, default) in defaults {
        let way = way_to(&server, &database, |option, name| !option.starts_with(name), name).await;
        let error = PostgresStore::open(&way).await.unwrap_err();
        assert!(matches!(error, OpenError::Setting(_)), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{name} = {default:?}")), "{text}");
        assert!(text.contains("connect to the server itself") && text.contains("ignore_startup_parameters"));
    }
}
