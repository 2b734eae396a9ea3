//! The user, the customer, the branding, the wallet, and the service center.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cloud::catalogue::{self, Catalogue, Phone};
use crate::cloud::rest::api::{Call, Moment, Nothing};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Change, Employee, Read, StoreError};

/// The setting with the customer's changes.
const CUSTOMER_SETTING: &str = "customer";

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Customer")]
pub(super) struct CustomerBody {
    name: String,
    reference: i64,
    street: String,
    number: String,
    postal_code: String,
    city: String,
    country: String,
    email_address: String,
    financial_email_address: String,
    phone: Phone,
    currency: String,
}

/// The customer's changes of its own details.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(super) struct CustomerInput {
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    name: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    street: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    number: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    postal_code: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    city: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    country: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    email_address: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 255))]
    financial_email_address: Optional<String>,
    /// Text, or a number as in the example.
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    phone: Optional<Phone>,
}

/// The customer of the catalogue, with the customer's own changes.
pub(super) fn customer(read: &impl Read, catalogue: &Catalogue) -> Result<catalogue::Customer, StoreError> {
    let mut customer = catalogue.customer.clone();
    let changes: CustomerInput = match read.setting(CUSTOMER_SETTING)? {
        Some(bytes) => serde_json::from_slice(&bytes)?,
        None => CustomerInput::default(),
    };
    for (own, changed) in [
        (&mut customer.name, changes.name),
        (&mut customer.street, changes.street),
        (&mut customer.number, changes.number),
        (&mut customer.postal_code, changes.postal_code),
        (&mut customer.city, changes.city),
        (&mut customer.country, changes.country),
        (&mut customer.email_address, changes.email_address),
        (&mut customer.financial_email_address, changes.financial_email_address),
    ] {
        if let Some(changed) = changed.0 {
            *own = changed;
        }
    }
    if let Some(phone) = changes.phone.0 {
        customer.phone = phone.plain();
    }
    Ok(customer)
}

fn customer_body(catalogue: &Catalogue, customer: catalogue::Customer) -> CustomerBody {
    CustomerBody {
        name: customer.name,
        reference: customer.reference,
        street: customer.street,
        number: customer.number,
        postal_code: customer.postal_code,
        city: customer.city,
        country: customer.country,
        email_address: customer.email_address,
        financial_email_address: customer.financial_email_address,
        phone: customer.phone,
        currency: catalogue.currency.code.clone(),
    }
}

pub(super) async fn own_customer(
    call: Call<Nothing, Nothing, Nothing>,
) -> Result<Json<CustomerBody>, ApiError> {
    let customer = customer(&call.app.store.view()?, &call.app.catalogue)?;
    Ok(Json(customer_body(&call.app.catalogue, customer)))
}

/// Stores the changes on top of the earlier ones.
fn merge(change: &Change, input: &CustomerInput) -> Result<(), StoreError> {
    let mut all = match change.setting(CUSTOMER_SETTING)? {
        Some(bytes) => serde_json::from_slice(&bytes)?,
        None => serde_json::Map::new(),
    };
    if let serde_json::Value::Object(given) = serde_json::to_value(input)? {
        all.extend(given);
    }
    change.set_setting(CUSTOMER_SETTING, &serde_json::to_vec(&all)?)
}

pub(super) async fn edit_customer(
    call: Call<Nothing, Nothing, CustomerInput>,
) -> Result<Json<CustomerBody>, ApiError> {
    let Call { app, body, .. } = call;
    let catalogue = app.catalogue.clone();
    let stored = app.store.change(move |change| {
        merge(change, &body)?;
        customer(change, &catalogue)
    });
    let customer = stored.await?;
    Ok(Json(customer_body(&app.catalogue, customer)))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Branding {
    branding_name: String,
    customer_portal_url: String,
}

pub(super) async fn branding(call: Call<Nothing, Nothing, Nothing>) -> Result<Json<Branding>, ApiError> {
    let provider = &call.app.catalogue.service_provider;
    Ok(Json(Branding {
        branding_name: provider.name.clone(),
        customer_portal_url: provider.portal_url.clone(),
    }))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ServiceCenter {
    name: String,
    payment_by_prepaid_wallet: bool,
    pricing_version: i64,
    primary_background_color: String,
    logo: String,
    service_message: String,
    primary_color: String,
    csat_enabled: bool,
}

pub(super) async fn service_center(
    call: Call<Nothing, Nothing, Nothing>,
) -> Result<Json<ServiceCenter>, ApiError> {
    let provider = &call.app.catalogue.service_provider;
    Ok(Json(ServiceCenter {
        name: provider.name.clone(),
        payment_by_prepaid_wallet: true,
        pricing_version: 1,
        primary_background_color: provider.background_color.clone(),
        logo: provider.logo.clone(),
        service_message: provider.service_message.clone(),
        primary_color: provider.color.clone(),
        csat_enabled: true,
    }))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ServiceCenterState {
    state: String,
    ends_at: Option<String>,
    message: String,
}

pub(super) async fn state(
    call: Call<Nothing, Nothing, Nothing>,
) -> Result<Json<ServiceCenterState>, ApiError> {
    let provider = &call.app.catalogue.service_provider;
    Ok(Json(ServiceCenterState {
        state: provider.state.clone(),
        ends_at: provider.state_ends_at.clone(),
        message: provider.message.clone(),
    }))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Wallet {
    balance: f64,
    balance_state: String,
}

pub(super) async fn wallet(call: Call<Nothing, Nothing, Nothing>) -> Result<Json<Wallet>, ApiError> {
    let balance = call.app.catalogue.service_provider.wallet_balance.parse().unwrap_or_default();
    Ok(Json(Wallet { balance, balance_state: "healthy".to_owned() }))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Address {
    country: String,
    locality: String,
    street: String,
    postal_code: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Client {
    name: String,
    reference: String,
    allow_tickets_without_product: bool,
    address: Address,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct WalletSettings {
    balance: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct UserServiceCenter {
    is_open: bool,
    tickets_scheduler_active_until: Option<Moment>,
    tickets_scheduler_enabled: bool,
    tickets_scheduler_message: String,
    service_message: String,
    service_message_active: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Ui {
    company_name: String,
    portal_header_background_color: String,
    portal_headerlogo_path: String,
    theme_color: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Provider {
    id: i64,
    name: String,
    has_prepaid_wallet: bool,
    prepaid_wallet_settings: WalletSettings,
    payment_by_prepaid_balance: bool,
    service_center: UserServiceCenter,
    currency: String,
    ui: Ui,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct User {
    id: Uuid,
    first_name: String,
    middle_name: String,
    last_name: String,
    client: Client,
    service_provider: Provider,
}

pub(super) async fn user(call: Call<Nothing, Nothing, Nothing>) -> Result<Json<User>, ApiError> {
    let catalogue = &call.app.catalogue;
    let view = call.app.store.view()?;
    let customer = customer(&view, catalogue)?;
    let employee: Option<Employee> = view.get(customer.id.as_bytes())?;
    let (first_name, last_name) = match employee {
        Some(employee) => (employee.given_name, employee.family_name),
        None => (customer.given_name.clone(), customer.family_name.clone()),
    };
    let provider = &catalogue.service_provider;
    Ok(Json(User {
        id: customer.id,
        first_name,
        middle_name: String::new(),
        last_name,
        client: Client {
            name: customer.name.clone(),
            reference: customer.reference.to_string(),
            allow_tickets_without_product: true,
            address: Address {
                country: customer.country,
                locality: customer.city,
                street: format!("{} {}", customer.street, customer.number),
                postal_code: customer.postal_code,
            },
        },
        service_provider: Provider {
            id: provider.id,
            name: provider.name.clone(),
            has_prepaid_wallet: true,
            prepaid_wallet_settings: WalletSettings { balance: provider.wallet_balance.clone() },
            payment_by_prepaid_balance: true,
            service_center: UserServiceCenter {
                is_open: provider.state == "opened",
                tickets_scheduler_active_until: provider.state_end().map(Moment),
                tickets_scheduler_enabled: provider.state == "scheduled",
                tickets_scheduler_message: provider.message.clone(),
                service_message: provider.service_message.clone(),
                service_message_active: !provider.service_message.is_empty(),
            },
            currency: catalogue.currency.code.clone(),
            ui: Ui {
                company_name: customer.name,
                portal_header_background_color: provider.background_color.clone(),
                portal_headerlogo_path: provider.logo.clone(),
                theme_color: provider.color.clone(),
            },
        },
    }))
}
