//! An object store or a folder, made safe: addresses, credentials, limits, conditional writes, uploads, diagnosis.
//!
//! - A *store* is a prefix of a bucket or container, or a folder. A *key* names an object below that prefix.
//! - A *call* has a time limit, and concurrency is bounded: [`StoreOptions::call_timeout`],
//!   [`StoreOptions::concurrency`].
//! - A *conditional write* succeeds only if the object is unchanged: [`Store::create`], [`Store::replace`].
//! - A *record* names a multipart upload under way, so that another run can abort it: [`Upload`], [`end_upload`].
//!
//! Errors have the kind `Usage` if an address or setting is wrong, `Store` if the store fails, `Held` if another writer
//! was first, `Integrity` if an object is malformed. A write that failed with `Store` may still have happened. Must not
//! depend on: what is stored, or that it is a lake.

mod address;
mod answers;
mod calls;
mod cloud;
mod conditional;
mod diagnose;
mod disk;
mod environment;
mod google;
mod group_sync;
mod http;
mod limits;
mod lock;
mod parted;
mod probe;
mod recorded;
mod remains;
#[cfg(test)]
mod shelf;
#[expect(clippy::module_inception, reason = "the module is named after its type")]
mod store;
mod upload;

pub use calls::StoreCalls;
pub use cloud::{S3Addressing, StoreOptions};
pub use lock::{Lock, Site, lock};
pub use probe::{Capability, Probe};
pub use recorded::end_upload;
pub use remains::Remains;
#[cfg(test)]
pub(crate) use shelf::Shelf;
pub use store::{OpenObject, Store, to_json};
pub use upload::{ClosedUpload, Upload, Uploaded};
