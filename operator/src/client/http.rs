//! Reading the answers of the REST API.

use connector_agent::protocol::problem::Problem;
use reqwest::Response;
use serde::Deserialize;

use super::error::OperatorError;

/// The longest response body that is read, in bytes. The longest list, of 1000 tickets, has about 1 MB; the
/// limit bounds the memory.
const MAX_BODY: usize = 4 << 20;

/// The response, if its status reports success.
pub(super) async fn success(what: &'static str, response: Response) -> Result<Response, OperatorError> {
    if response.status().is_success() {
        return Ok(response);
    }
    Err(OperatorError::Refused { what: what.to_owned(), problem: problem(response).await })
}

/// The body, if it is not longer than [`MAX_BODY`].
async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(format!("the body is longer than {MAX_BODY} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The problem object in an error response, or one made from the status if the body holds none.
pub(super) async fn problem(response: Response) -> Problem {
    let status = response.status();
    let described = body(response).await.ok().and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
    described.filter(|problem| !problem.title.is_empty()).unwrap_or_else(|| {
        let title = status.canonical_reason().unwrap_or("Error");
        Problem::new(status.as_u16(), "http", title, format!("The cloud answered with status {status}."))
    })
}

/// The JSON body of a response.
pub(super) async fn answer<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    response: Response,
) -> Result<T, OperatorError> {
    let invalid = |detail| OperatorError::Answer { what, detail };
    let body = body(response).await.map_err(invalid)?;
    serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))
}
