//! The database: consistent views, durable transactions.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use uuid::Uuid;

use super::model::{
    Account, Attachment, Connector, Employee, Favorite, Note, OneTimePassword, PincodeGuard, PreparedTicket,
    RefreshToken, Ticket,
};
use super::record::{ByteTable, StoreError, StoredRecord, number_key};

/// Settings and counters, by name.
const META: ByteTable = ByteTable::new("meta");
/// The number of a connector or ticket, by UUID.
const NUMBERS: ByteTable = ByteTable::new("numbers");
/// Uploaded files, by reference.
const UPLOADS: ByteTable = ByteTable::new("uploads");

/// The reading part of both kinds of transaction.
pub(crate) trait Read {
    /// The bytes under `key`.
    fn bytes(&self, table: ByteTable, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// All records of a type, ordered by key.
    fn all<R: StoredRecord>(&self) -> Result<Vec<R>, StoreError>;

    /// The record under `key`.
    fn get<R: StoredRecord>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        match self.bytes(R::TABLE, key)? {
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            None => Ok(None),
        }
    }

    /// The connector or ticket with this UUID.
    fn by_uuid<R: StoredRecord>(&self, uuid: Uuid) -> Result<Option<R>, StoreError> {
        match self.bytes(NUMBERS, uuid.as_bytes())? {
            Some(number) => self.get(&number),
            None => Ok(None),
        }
    }

    /// The connector with this number.
    fn connector(&self, id: i64) -> Result<Option<Connector>, StoreError> {
        self.get(&number_key(id))
    }

    /// The ticket with this number.
    fn ticket(&self, id: i64) -> Result<Option<Ticket>, StoreError> {
        self.get(&number_key(id))
    }

    /// The value of a setting.
    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes(META, name.as_bytes())
    }

    /// The content of an uploaded file.
    fn upload(&self, reference: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes(UPLOADS, reference.as_bytes())
    }
}

/// A consistent, read-only view of the database.
pub(crate) struct View(ReadTransaction);

/// A transaction that changes the database completely or not at all.
pub(crate) struct Change(WriteTransaction);

fn collect<R: StoredRecord>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<R>, StoreError> {
    let mut records = Vec::new();
    for entry in table.iter()? {
        records.push(serde_json::from_slice(entry?.1.value())?);
    }
    Ok(records)
}

impl Read for View {
    fn bytes(&self, table: ByteTable, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(ReadableTable::get(&self.0.open_table(table)?, key)?.map(|value| value.value().to_vec()))
    }

    fn all<R: StoredRecord>(&self) -> Result<Vec<R>, StoreError> {
        collect(&self.0.open_table(R::TABLE)?)
    }
}

impl Read for Change {
    fn bytes(&self, table: ByteTable, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.open_table(table)?.get(key)?.map(|value| value.value().to_vec()))
    }

    fn all<R: StoredRecord>(&self) -> Result<Vec<R>, StoreError> {
        collect(&self.0.open_table(R::TABLE)?)
    }
}

impl Change {
    /// Writes bytes under `key`.
    fn put_bytes(&self, table: ByteTable, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.open_table(table)?.insert(key, value)?;
        Ok(())
    }

    /// Writes a record, replacing an older one with its key.
    pub(crate) fn put<R: StoredRecord>(&self, record: &R) -> Result<(), StoreError> {
        self.put_bytes(R::TABLE, &record.key(), &serde_json::to_vec(record)?)
    }

    /// Removes the record under `key`. Returns whether there was one.
    pub(crate) fn delete<R: StoredRecord>(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.0.open_table(R::TABLE)?.remove(key)?.is_some())
    }

    /// Makes a record available by its UUID.
    pub(crate) fn index(&self, uuid: Uuid, number: i64) -> Result<(), StoreError> {
        self.put_bytes(NUMBERS, uuid.as_bytes(), &number_key(number))
    }

    /// Writes a setting.
    pub(crate) fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.put_bytes(META, name.as_bytes(), value)
    }

    /// Stores an uploaded file.
    pub(crate) fn put_upload(&self, reference: Uuid, content: &[u8]) -> Result<(), StoreError> {
        self.put_bytes(UPLOADS, reference.as_bytes(), content)
    }

    /// The next number of a counter, which was never returned before.
    pub(crate) fn next_number(&self, counter: &str, first: i64) -> Result<i64, StoreError> {
        let last = self.setting(counter)?.and_then(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
        let next = last.map_or(first, |last| last.saturating_add(1));
        self.set_setting(counter, &number_key(next))?;
        Ok(next)
    }
}

/// The database.
#[derive(Clone)]
pub(crate) struct Store(Arc<Database>);

impl Store {
    /// Opens the database file; creates it if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file_error = |source| StoreError::File { path: path.to_owned(), source };
        // create the file with its mode first, because it contains pincodes and secrets
        std::os::unix::fs::OpenOptionsExt::mode(
            std::fs::OpenOptions::new().create(true).truncate(false).write(true),
            0o600,
        )
        .open(path)
        .map_err(file_error)?;
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        for table in [
            META,
            NUMBERS,
            UPLOADS,
            Connector::TABLE,
            Ticket::TABLE,
            PreparedTicket::TABLE,
            Account::TABLE,
            RefreshToken::TABLE,
            PincodeGuard::TABLE,
            OneTimePassword::TABLE,
            Attachment::TABLE,
            Note::TABLE,
            Employee::TABLE,
            Favorite::TABLE,
        ] {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        Ok(Self(Arc::new(database)))
    }

    /// Opens a view for reading, without waiting for writers.
    pub(crate) fn view(&self) -> Result<View, StoreError> {
        Ok(View(self.0.begin_read()?))
    }

    /// Runs a transaction, and makes it durable. An error leaves the database unchanged.
    pub(crate) fn change_now<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&Change) -> Result<T, E>,
    ) -> Result<T, E> {
        let change = Change(self.0.begin_write().map_err(StoreError::from)?);
        let result = work(&change)?;
        change.0.commit().map_err(StoreError::from)?;
        Ok(result)
    }

    /// Runs a transaction on a blocking thread, because async tasks must not wait for the disk.
    pub(crate) async fn change<T, E>(
        &self,
        work: impl FnOnce(&Change) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || store.change_now(work)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Ending.into()),
        }
    }
}
