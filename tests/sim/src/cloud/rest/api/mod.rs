//! The machinery of the documented APIs: one row of a table declares an operation, and the router, the checks of
//! requests, the answers to OPTIONS and the OpenAPI description are made from it.

mod answer;
mod input;
mod openapi;
mod operation;
mod scalars;

pub(crate) use answer::{Null, Removed, SeeOther, WithHeader};
pub(crate) use input::Nothing;
pub(crate) use openapi::{Description, describe};
pub(crate) use operation::{Access, Call, Mark, Operation, routes, row};
pub(crate) use scalars::{LenientInteger, LenientText, Moment};
