//! What only reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::{SqliteStore, Turn};
use super::give_up;
use crate::store::{AdministeredStore as _, StoreError};

/// A new connection finds the file locked: the thread that asked goes on with other tasks, and the answer comes when it is free.
#[tokio::test]
async fn a_locked_file_is_waited_for_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).await.unwrap();
    // The store's own connection would keep others from locking the file.
    store.writer.close().await;
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT").unwrap();
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.incarnation().await }
    });
    let start = Instant::now();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(2), "the one thread was blocked for {:?}", start.elapsed());
    assert!(!reading.is_finished());
    drop(other);
    assert_eq!(reading.await.unwrap().unwrap(), 0);
}

/// Keeps its listing under way until it may end, and counts.
fn listing(
    store: &SqliteStore,
    under_way: &Arc<AtomicUsize>,
    may_end: &Arc<AtomicBool>,
) -> impl Future<Output = Result<(), StoreError>> + use<> {
    let (store, under_way, may_end) = (store.clone(), Arc::clone(under_way), Arc::clone(may_end));
    let waits = move |_: Turn, ()| async move {
        under_way.fetch_add(1, Ordering::SeqCst);
        while !may_end.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    async move { store.list((), waits).await }
}

/// Who stops waiting for a listing does not make room for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_list_at_one_time_whoever_waits_for_them_and_keys_are_read_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let (under_way, may_end) = (Arc::default(), Arc::default());
    for _ in 0..4 {
        give_up(listing(&store, &under_way, &may_end), 3).await;
    }
    let fifth = tokio::spawn(listing(&store, &under_way, &may_end));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let listing = under_way.load(Ordering::SeqCst);
    let keys = tokio::time::timeout(Duration::from_secs(5), store.keys()).await;
    // Before anything can fail: their threads are waited for.
    may_end.store(true, Ordering::SeqCst);
    assert_eq!(listing, 4);
    assert!(keys.expect("keys wait for no listing").unwrap().0.is_empty());
    fifth.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_closes_the_store_waits_for_a_listing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let (under_way, may_end) = (Arc::default(), Arc::default());
    let list = tokio::spawn(listing(&store, &under_way, &may_end));
    while under_way.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    tokio::time::sleep(Duration::from_millis(60)).await;
    let waits = !closing.is_finished();
    let closed = store.list_clients(None).await.is_err() && store.incarnation().await.is_err();
    may_end.store(true, Ordering::SeqCst);
    assert!(waits && closed);
    list.await.unwrap().unwrap();
    closing.await.unwrap();
    // The last connection has taken the log with it.
    assert!(!folder.path().join("store.db-wal").exists());
}
