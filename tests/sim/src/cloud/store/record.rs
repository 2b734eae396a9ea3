//! Records with their tables and keys, and the errors of the database.

use redb::TableDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A table from bytes to bytes.
pub(crate) type ByteTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The reasons why the database cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the state database failed")]
    Database(#[source] Box<redb::Error>),
    /// A record does not have this version's format.
    #[error("a record of the state database cannot be read")]
    StoredRecord(#[from] serde_json::Error),
    /// The state directory or a file in it cannot be used.
    #[error("cannot use {path}")]
    File {
        /// The path.
        path: std::path::PathBuf,
        /// The I/O error that caused this.
        #[source]
        source: std::io::Error,
    },
    /// The blocking task that ran the transaction was cancelled, because the process ends.
    #[error("the cloud is shutting down")]
    Ending,
}

macro_rules! from_database {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

from_database!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// A record with its own table.
pub(crate) trait StoredRecord: Serialize + DeserializeOwned {
    /// The record's table.
    const TABLE: ByteTable;
    /// The record's key. Numbers are big-endian, so that the table is ordered by number.
    fn key(&self) -> Vec<u8>;
}

/// The key of a number.
pub(crate) fn number_key(number: i64) -> [u8; 8] {
    number.to_be_bytes()
}
