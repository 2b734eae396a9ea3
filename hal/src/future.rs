//! Boxed futures.

use std::pin::Pin;

/// A boxed future, for the few methods of a trait object that wait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
