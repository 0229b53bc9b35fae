//! Links the core without std. A dependency that pulls std in defines a second panic handler (E0152).
#![no_std]

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Hands out one arena from front to back and takes nothing back: enough for a program that ends at once.
struct Arena;

static USED: AtomicUsize = AtomicUsize::new(0);
static mut MEMORY: [u8; 1 << 16] = [0; 1 << 16];

unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() + layout.align();
        let at = USED.fetch_add(size, Ordering::Relaxed);
        if at + size > 1 << 16 {
            return core::ptr::null_mut();
        }
        let start = (&raw mut MEMORY).cast::<u8>().wrapping_add(at);
        start.wrapping_add(start.align_offset(layout.align()))
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ARENA: Arena = Arena;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
pub extern "C" fn use_the_core() {
    let relaxation = "AssumeS256=https://issuer.example".parse::<mcp_authz::policy::Relaxation>();
    core::hint::black_box(&relaxation);
}
