//! Messenger channels, their attachments, and translations.

use axum::Json;
use axum::extract::ws::Message;
use axum::http::HeaderName;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cloud::hub::Changed;
use crate::cloud::rest::api::{Call, Nothing, WithHeader};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::own::messenger::{channel_ticket, download_url, is_closed, upload_url};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Attachment, Read};

/// The documents announce an address for the upload, but print no field for it.
const UPLOAD_URL: HeaderName = HeaderName::from_static("sandbox-upload-url");
const DOWNLOAD_URL: HeaderName = HeaderName::from_static("sandbox-download-url");
/// Limit of the attachments of one channel.
const MAX_ATTACHMENTS: usize = 100;

#[derive(Deserialize, JsonSchema)]
pub(super) struct ChannelPath {
    #[serde(rename = "channelId")]
    #[schemars(length(min = 1, max = 64))]
    id: String,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ChannelQuery {
    #[schemars(length(min = 1, max = 64))]
    channel_id: String,
}

/// The UUID of a channel: alone, or behind the ticket's number as in `chat_id`.
fn channel(text: &str) -> Result<Uuid, ApiError> {
    let uuid = text.rsplit_once('_').map_or(text, |(_, uuid)| uuid);
    uuid.parse().map_err(|_| ApiError::not_found("channel"))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Channel {
    arn: String,
    state: String,
}

pub(super) async fn one(call: Call<ChannelPath, Nothing, Nothing>) -> Result<Json<Channel>, ApiError> {
    let ticket = channel_ticket(&call.app.store.view()?, &call.subject, channel(&call.path.id)?)?;
    let state = if is_closed(&ticket) { "closed" } else { "open" };
    Ok(Json(Channel {
        arn: format!("arn:sandbox:messenger:channel/{}", ticket.chat_id),
        state: state.to_owned(),
    }))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ChannelName {
    channel_id: Uuid,
}

/// Pings the websockets of the channel.
pub(super) async fn send_control_message(
    call: Call<ChannelPath, Nothing, Nothing>,
) -> Result<Json<ChannelName>, ApiError> {
    let channel_id = channel(&call.path.id)?;
    let ticket = channel_ticket(&call.app.store.view()?, &call.subject, channel_id)?;
    call.app.hub.changed(Changed::Control(channel_id));
    for socket in call.app.hub.sockets(ticket.connector_id, ticket.connection_uuid) {
        socket.offer(Message::Ping(Bytes::new()));
    }
    Ok(Json(ChannelName { channel_id }))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct AttachmentInput {
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(min = 1, max = 255))]
    file_name: Optional<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Attachment")]
pub(super) struct AttachmentBody {
    file_name: String,
    file_reference: String,
}

impl AttachmentBody {
    fn of(attachment: &Attachment) -> Self {
        let Attachment { channel_id, file_reference, file_name, .. } = attachment;
        Self {
            file_name: file_name.clone(),
            file_reference: format!("/channel/{channel_id}/{file_reference}/{file_name}"),
        }
    }
}

/// The name as the last part of a reference and of a path: without separators, without characters that show nothing or
/// turn the text around, and never a directory.
fn plain_name(name: &str) -> String {
    let is_dots = name.chars().all(|character| character == '.');
    let plain = |character: char| match character {
        '/'
        | '\\'
        | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{FEFF}' => '_',
        '.' if is_dots => '_',
        character if character.is_control() => '_',
        character => character,
    };
    name.chars().map(plain).collect()
}

pub(super) async fn attach(
    call: Call<Nothing, ChannelQuery, AttachmentInput>,
) -> Result<WithHeader<Json<AttachmentBody>>, ApiError> {
    let Call { app, subject, query, body, .. } = call;
    let channel_id = channel(&query.channel_id)?;
    let file_name = body.file_name.0.unwrap_or_else(|| "attachment".to_owned());
    let attachment = Attachment {
        file_reference: Uuid::new_v4(),
        channel_id,
        file_name: plain_name(&file_name),
        size: None,
        created_at: OffsetDateTime::now_utc(),
    };
    let made = attachment.clone();
    let stored = app.store.change(move |change| {
        let ticket = channel_ticket(change, &subject, channel_id)?;
        if is_closed(&ticket) {
            return Err(ApiError::conflict("channel-closed", "Channel closed", "The ticket has ended."));
        }
        let all = change.all::<Attachment>()?;
        if all.iter().filter(|other| other.channel_id == channel_id).count() >= MAX_ATTACHMENTS {
            let detail = format!("A channel has at most {MAX_ATTACHMENTS} attachments.");
            return Err(ApiError::conflict("full", "Full", detail));
        }
        Ok(change.put(&attachment)?)
    });
    stored.await?;
    let url = upload_url(&app, made.file_reference);
    Ok(WithHeader(Json(AttachmentBody::of(&made)), UPLOAD_URL, url))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct AttachmentQuery {
    #[schemars(length(min = 1, max = 64))]
    channel_id: String,
    #[schemars(length(min = 1, max = 600))]
    file_reference: String,
}

pub(super) async fn attachment(
    call: Call<Nothing, AttachmentQuery, Nothing>,
) -> Result<WithHeader<Json<AttachmentBody>>, ApiError> {
    let channel_id = channel(&call.query.channel_id)?;
    let view = call.app.store.view()?;
    channel_ticket(&view, &call.subject, channel_id)?;
    let mut parts = call.query.file_reference.split('/');
    let reference: Option<Uuid> = parts.nth(3).and_then(|part| part.parse().ok());
    let found = match reference {
        Some(reference) => view.get::<Attachment>(reference.as_bytes())?,
        None => None,
    };
    let found = found.filter(|found| {
        found.channel_id == channel_id
            && AttachmentBody::of(found).file_reference == call.query.file_reference
    });
    let found = found.ok_or_else(|| ApiError::not_found("attachment"))?;
    let url = download_url(&call.app, channel_id, found.file_reference);
    Ok(WithHeader(Json(AttachmentBody::of(&found)), DOWNLOAD_URL, url))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Original {
    #[schemars(length(max = 10_000))]
    original: String,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct TranslationInput {
    message: Original,
    #[schemars(length(min = 2, max = 35))]
    target_language: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Translated {
    original: String,
    translated: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Translation {
    message: Translated,
    target_language: String,
    source_language: String,
}

/// Translates the phrases of the catalogue's dictionary; other text comes back with a note.
pub(super) async fn translate(
    call: Call<Nothing, Nothing, TranslationInput>,
) -> Result<Json<Translation>, ApiError> {
    let TranslationInput { message: Original { original }, target_language } = call.body;
    let dictionary = &call.app.catalogue.dictionary;
    let found =
        dictionary.iter().find(|known| known.language == target_language && known.original == original);
    let translated = found.map_or_else(
        || format!("[the sandbox has no translation to {target_language}] {original}"),
        |known| known.translated.clone(),
    );
    Ok(Json(Translation {
        message: Translated { original, translated },
        target_language,
        source_language: "en".to_owned(),
    }))
}
