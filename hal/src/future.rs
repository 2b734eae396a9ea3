//! The boxed future of the crate's traits.

use std::pin::Pin;

/// A boxed future, returned by the few trait methods that wait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
