//! Messenger channels: one for each ticket, with control messages and attachments.

use axum::Json;
use axum::Router;
use axum::extract::ws::Message;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::extract::{self, Body, Caller, Id, Parameters};
use super::fields::Fields;
use super::problem::ApiError;
use crate::cloud::app::App;
use crate::cloud::clock::unix_seconds;
use crate::cloud::hub::Changed;
use crate::cloud::store::{Attachment, Read, Ticket};
use crate::cloud::views;

/// Limit of an attachment, in bytes.
const MAX_UPLOAD: usize = 10 * 1024 * 1024;
/// Lifetime of an upload address, in seconds.
const UPLOAD_LIFETIME: i64 = 900;
/// Limit of the attachments of one channel.
const MAX_ATTACHMENTS: usize = 100;
/// Limit of a file name.
const MAX_FILE_NAME: usize = 255;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/channels/{id}", get(one))
        .route("/v1/channels/{id}/actions/send-control-message", post(send_control_message))
        .route("/v1/channels/{id}/attachments", get(list_attachments).post(attach))
        .route("/v1/channels/{id}/attachments/{file_reference}", get(download))
        .route("/v1/uploads/{id}", put(upload).layer(DefaultBodyLimit::max(MAX_UPLOAD)))
}

/// The ticket of a channel, if the caller may see it.
fn ticket(read: &impl Read, caller: &Caller, channel: Uuid) -> Result<Ticket, ApiError> {
    let ticket = read
        .all::<Ticket>()?
        .into_iter()
        .find(|ticket| ticket.chat_id == channel)
        .ok_or_else(|| ApiError::not_found("channel"))?;
    if caller.sees(ticket.connector_id) {
        Ok(ticket)
    } else {
        Err(ApiError::forbidden("The channel belongs to another connector."))
    }
}

async fn one(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let ticket = ticket(&app.store.view()?, &caller, id.uuid()?)?;
    Ok(Json(json!({
        "arn": format!("arn:sandbox:messenger:channel/{}", ticket.chat_id),
        "state": views::chat_state(&ticket),
    })))
}

/// Sends a `ping` message to subscribers of the ticket, and a websocket ping to the connector and the
/// operator.
async fn send_control_message(
    State(app): State<App>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let channel = id.uuid()?;
    let ticket = ticket(&app.store.view()?, &caller, channel)?;
    app.hub.changed(Changed::Control(channel));
    for socket in app.hub.sockets(ticket.connector_id, ticket.connection_uuid) {
        socket.offer(Message::Ping(Bytes::new()));
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn attach(State(app): State<App>, caller: Caller, id: Id, body: Body) -> Result<Response, ApiError> {
    let channel_id = id.uuid()?;
    let mut fields = body.fields();
    let file_name = fields.needed("file_name", |fields, field| fields.name(field, MAX_FILE_NAME));
    fields.finish()?;
    let attachment = Attachment {
        file_reference: Uuid::new_v4(),
        channel_id,
        file_name: file_name.unwrap_or_default(),
        size: None,
        created_at: OffsetDateTime::now_utc(),
    };
    let reference = attachment.file_reference;
    app.store
        .change(move |change| {
            let ticket = ticket(change, &caller, channel_id)?;
            if views::chat_state(&ticket) == "closed" {
                return Err(ApiError::conflict("channel-closed", "Channel closed", "The ticket has ended."));
            }
            let all = change.all::<Attachment>()?;
            if all.iter().filter(|other| other.channel_id == channel_id).count() >= MAX_ATTACHMENTS {
                let detail = format!("A channel has at most {MAX_ATTACHMENTS} attachments.");
                return Err(ApiError::conflict("full", "Full", detail));
            }
            Ok(change.put(&attachment)?)
        })
        .await?;
    let expires = unix_seconds().saturating_add(UPLOAD_LIFETIME);
    let signature = app.signer.signature(&signed(reference, expires));
    let upload_url =
        format!("{}/v1/uploads/{reference}?expires={expires}&signature={signature}", app.api_url);
    let answer = json!({"upload_url": upload_url, "file_reference": reference});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The text that the signature of an upload address covers.
fn signed(reference: Uuid, expires: i64) -> String {
    format!("upload {reference} {expires}")
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
    let content = extract::bytes(request, &app).await?;
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

async fn list_attachments(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let channel = id.uuid()?;
    let view = app.store.view()?;
    ticket(&view, &caller, channel)?;
    let mut attachments = view.all::<Attachment>()?;
    attachments.retain(|attachment| attachment.channel_id == channel);
    attachments.sort_by_key(|attachment| attachment.created_at);
    let show = |attachment: &Attachment| {
        json!({
            "file_reference": attachment.file_reference,
            "file_name": attachment.file_name,
            "size": attachment.size,
        })
    };
    let all = i64::try_from(attachments.len()).unwrap_or(i64::MAX);
    Ok(Json(super::connectors::page(&attachments, 0, all, show)))
}

async fn download(
    State(app): State<App>,
    caller: Caller,
    Path((channel, reference)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let channel = Id(channel).uuid()?;
    let reference = Id(reference).uuid()?;
    let view = app.store.view()?;
    ticket(&view, &caller, channel)?;
    let attachment: Option<Attachment> = view.get(reference.as_bytes())?;
    if attachment.is_none_or(|attachment| attachment.channel_id != channel) {
        return Err(ApiError::not_found("attachment"));
    }
    let content = view.upload(reference)?.ok_or_else(|| ApiError::not_found("upload of this attachment"))?;
    // never a type that a browser would execute
    Ok(([(CONTENT_TYPE, "application/octet-stream")], content).into_response())
}
