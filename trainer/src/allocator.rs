//! The allocator of this program, and of libtorch too: it takes the place of the system's `malloc` in the whole process.
//! Must not be told how here: `cli/environment.c` says that there is one arena.

/// Tensors of many sizes that come and go leave fewer holes than in the system's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
