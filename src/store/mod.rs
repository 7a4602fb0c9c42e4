//! An object store or a folder, made safe to build on: addresses, credentials, limits, conditional writes, uploads, and
//! what its failures mean. Knows nothing of lakes.
//!
//! - A *store* is a bucket, a container or a folder, from a prefix on. A *key* names an object below that prefix.
//! - A *call* ends in time, and only so many are under way: [`StoreOptions::call_timeout`], [`StoreOptions::concurrency`].
//! - A *conditional write* happens only if the object is what the writer has seen: [`Store::create`], [`Store::replace`].
//! - A *record* names an upload in parts while it is under way, so that others can end it: [`Upload`], [`end_upload`].
//!
//! Errors: kind `Usage` if an address or a setting is wrong, `Store` if the store fails, `Held` if another writer was first,
//! `Integrity` if an object is not what it must be. After `Store`, a write may have happened all the same. Must not depend
//! on: what is stored.

mod address;
mod answers;
mod calls;
mod cloud;
mod conditional;
mod diagnose;
mod disk;
mod environment;
mod google;
mod http;
mod limits;
mod lock;
mod parted;
mod probe;
mod recorded;
#[cfg(test)]
mod shelf;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod store;
mod upload;

pub use calls::StoreCalls;
pub use cloud::{S3Addressing, StoreOptions};
pub use lock::{Lock, Site, lock};
pub use probe::{Capability, Probe};
pub use recorded::end_upload;
#[cfg(test)]
pub(crate) use shelf::Shelf;
pub use store::{Store, to_json};
pub use upload::Upload;
