//! The upload and the download of attachments, whose addresses are in headers of the documented answers.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use uuid::Uuid;

use crate::cloud::app::App;
use crate::cloud::clock::unix_seconds;
use crate::cloud::rest::extract::{self, Caller, Id, Parameters};
use crate::cloud::rest::fields::Fields;
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Attachment, Read, Subject, Ticket, TicketState};

/// Limit of an attachment, in bytes.
pub(in crate::cloud::rest) const MAX_UPLOAD: usize = 10 * 1024 * 1024;
/// Lifetime of an upload address, in seconds.
const UPLOAD_LIFETIME: i64 = 900;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/sandbox/v1/channels/{id}/attachments/{file_reference}", get(download))
        .route("/sandbox/v1/uploads/{id}", put(upload).layer(DefaultBodyLimit::max(MAX_UPLOAD)))
}

/// The ticket of a channel, if the caller may see it.
pub(in crate::cloud::rest) fn channel_ticket(
    read: &impl Read,
    caller: &Subject,
    channel: Uuid,
) -> Result<Ticket, ApiError> {
    let tickets = read.all::<Ticket>()?;
    let found = tickets.into_iter().find(|ticket| ticket.chat_id == channel);
    let ticket = found.ok_or_else(|| ApiError::not_found("channel"))?;
    if caller.sees(ticket.connector_id) {
        Ok(ticket)
    } else {
        Err(ApiError::forbidden("The channel belongs to another connector."))
    }
}

/// Whether the channel of the ticket takes nothing more.
pub(in crate::cloud::rest) fn is_closed(ticket: &Ticket) -> bool {
    matches!(ticket.state, TicketState::Closed | TicketState::Cancelled)
}

/// The address to which the content of an attachment is sent by PUT, for a limited time.
pub(in crate::cloud::rest) fn upload_url(app: &App, reference: Uuid) -> String {
    let expires = unix_seconds().saturating_add(UPLOAD_LIFETIME);
    let signature = app.signer.signature(&signed(reference, expires));
    format!("{}/sandbox/v1/uploads/{reference}?expires={expires}&signature={signature}", app.api_url)
}

/// The address of the content of an attachment.
pub(in crate::cloud::rest) fn download_url(app: &App, channel: Uuid, reference: Uuid) -> String {
    format!("{}/sandbox/v1/channels/{channel}/attachments/{reference}", app.api_url)
}

/// The text that the signature of an upload address covers.
fn signed(reference: Uuid, expires: i64) -> String {
    format!("upload {reference} {expires}")
}

/// Refuses a part of a content, which would replace the whole (RFC 9110, 14.5), and a form around the content.
fn check_whole(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(ApiError::bad_request("An upload cannot be continued: send the whole content."));
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.starts_with("multipart/") || kind == "application/x-www-form-urlencoded" {
        let detail = "The body is the content of the attachment, and not a form.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "unsupported-media-type", "Unsupported media type", detail));
    }
    Ok(())
}

/// Needs no login: the address itself permits the upload of this file for a limited time.
async fn upload(
    State(app): State<App>,
    id: Id,
    parameters: Parameters,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let reference = id.uuid()?;
    let mut fields = parameters.fields();
    let expires = fields.needed("expires", Fields::integer).unwrap_or_default();
    let signature = fields.needed("signature", |fields, field| fields.text(field, 128)).unwrap_or_default();
    fields.finish()?;
    if !app.signer.is_signature(&signed(reference, expires), &signature) {
        return Err(ApiError::forbidden("The signature was not made by this cloud."));
    }
    if expires <= unix_seconds() {
        return Err(ApiError::forbidden("The upload address has expired."));
    }
    let headers = request.headers().clone();
    // a body that is refused is read too, so that the client gets the answer
    let content = extract::bytes(request, &app).await?;
    check_whole(&headers)?;
    app.store
        .change(move |change| {
            let mut attachment: Attachment =
                change.get(reference.as_bytes())?.ok_or_else(|| ApiError::not_found("attachment"))?;
            attachment.size = Some(content.len() as u64);
            change.put(&attachment)?;
            Ok::<_, ApiError>(change.put_upload(reference, &content)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn download(
    State(app): State<App>,
    caller: Caller,
    Path((channel, reference)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let channel = Id(channel).uuid()?;
    let reference = Id(reference).uuid()?;
    let view = app.store.view()?;
    channel_ticket(&view, &caller.0, channel)?;
    let attachment: Option<Attachment> = view.get(reference.as_bytes())?;
    if attachment.is_none_or(|attachment| attachment.channel_id != channel) {
        return Err(ApiError::not_found("attachment"));
    }
    let content = view.upload(reference)?.ok_or_else(|| ApiError::not_found("upload of this attachment"))?;
    // never a type that a browser would execute
    Ok(([(CONTENT_TYPE, "application/octet-stream")], content).into_response())
}
