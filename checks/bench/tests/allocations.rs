//! How often a validation allocates. An allocator that counts is unsafe code, which the shipped packages forbid.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mcp_authz_bench::transitions::{Ours, Oxide, STEPS, Server, run_measured};
use mcp_authz_bench::{ALGORITHMS, World};

struct Counting;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(call: impl FnOnce() -> T) -> u32 {
    let before = COUNT.get();
    let result = call();
    let count = COUNT.get() - before;
    drop(result);
    count
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| Box::new(std::hint::black_box(1_u8))), 1);
    assert_eq!(allocations(|| std::hint::black_box(1_u8)), 0);
}

#[test]
fn a_validation_allocates_at_most_six_times_and_a_remembered_one_twice() {
    for algorithm in ALGORITHMS {
        let mut world = World::new(algorithm);
        let (outside, cold) = (allocations(|| world.outside()), allocations(|| world.cold()));
        let (warm, other) = (allocations(|| world.warm()), allocations(|| world.jsonwebtoken()));
        println!(
            "{algorithm}: cold {cold}, of them outside the signature {outside}, warm {warm}, jsonwebtoken {other}"
        );
        assert!(cold <= 6, "{algorithm}: {cold} allocations");
        assert!(warm <= 2, "{algorithm}: {warm} allocations for a remembered token");
        assert!(cold < other, "{algorithm}: jsonwebtoken allocates {other} times");
    }
}

fn allocations_of_a_flow(mut server: impl Server) -> Vec<u32> {
    // The first ones fill what is filled once.
    run_measured(&mut server, 3, &mut |step| step());
    let mut counts = Vec::new();
    run_measured(&mut server, 1, &mut |step| {
        let before = COUNT.get();
        step();
        counts.push(COUNT.get() - before);
    });
    counts
}

#[test]
fn a_flow_allocates_less_than_that_of_another_implementation() {
    let (ours, other) = (allocations_of_a_flow(Ours::default()), allocations_of_a_flow(Oxide::new(true)));
    println!("{STEPS:?}: {ours:?}, oxide-auth {other:?}");
    assert!(ours.iter().sum::<u32>() < other.iter().sum(), "{ours:?}, oxide-auth {other:?}");
}
