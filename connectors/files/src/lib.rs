//! Files on disk and in object stores: Parquet, each file there whole and exactly once.
//!
//! [`FilesSink`] is the destination. It stages in a way that costs no copy: on a disk a temporary file that a rename
//! makes visible, in an object store a multipart upload that lacks only its completion. [`open_store`] is how everybody
//! in the house opens such a place, and [`store_error`] how what goes wrong there is told.
//!
//! What a reader may rely on (the layout of a file, its name, its footer) is described in [`mod@form`] and [`mod@layout`].

pub mod compact;
mod encode;
mod error;
pub mod form;
pub mod layout;
mod options;
mod repeats;
mod sink;
mod staging;
mod store;
mod writer;

pub use error::store_error;
pub use options::FilesOptions;
pub use sink::{FilesSink, free_bytes};
pub use store::open_store;
