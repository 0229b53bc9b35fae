use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{FileStore, KeySource, MemoryStore, kit};
use crate::clock::Clock;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_keeps_the_contract() {
    kit::run(|clock| async { MemoryStore::new().with_clock(clock) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_a_directory_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    kit::run(|clock: Arc<dyn Clock>| {
        let path = folder.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        async { FileStore::open(path, KeySource::File).await.unwrap().0.with_clock(clock) }
    })
    .await
    .unwrap();
}
