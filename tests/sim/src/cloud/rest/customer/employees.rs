//! The customer's employees.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bodies::{Page, Paging};
use crate::cloud::catalogue::Catalogue;
use crate::cloud::rest::api::{Call, Nothing};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::problem::{ApiError, Violations};
use crate::cloud::store::{Employee, Read};

/// Limit of the employees.
const MAX_EMPLOYEES: usize = 1000;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Employee")]
pub(super) struct EmployeeBody {
    id: Uuid,
    given_name: String,
    family_name: String,
    username: Option<String>,
    enabled: bool,
    correspondence_locale: String,
}

impl From<Employee> for EmployeeBody {
    fn from(employee: Employee) -> Self {
        Self {
            id: employee.id,
            given_name: employee.given_name,
            family_name: employee.family_name,
            username: employee.username,
            enabled: employee.enabled,
            correspondence_locale: employee.correspondence_locale,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct EmployeeInput {
    #[schemars(length(max = 255))]
    given_name: String,
    #[schemars(length(max = 255))]
    family_name: String,
    /// Required, but may be null.
    #[schemars(required, schema_with = "username_schema")]
    username: Option<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 64))]
    correspondence_locale: Optional<String>,
    #[serde(default)]
    enabled: Option<bool>,
}

fn username_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": ["string", "null"], "format": "email", "minLength": 1, "maxLength": 255})
}

impl EmployeeInput {
    /// The locale that the input names, which has to be a known one; otherwise the current or the first.
    fn locale(&self, catalogue: &Catalogue, current: Option<&str>, violations: &mut Violations) -> String {
        if let Some(locale) = &self.correspondence_locale.0 {
            let message = format!("must be one of: {}", catalogue.locales.join(", "));
            violations.check(catalogue.locales.contains(locale), "correspondence_locale", message);
            return locale.clone();
        }
        let first = || catalogue.locales.first().map_or("en-GB", String::as_str);
        current.unwrap_or_else(first).to_owned()
    }
}

pub(super) async fn list(call: Call<Nothing, Paging, Nothing>) -> Result<Json<Page<EmployeeBody>>, ApiError> {
    let mut employees: Vec<Employee> = call.app.store.view()?.all()?;
    employees
        .sort_by(|a, b| (&a.family_name, &a.given_name, a.id).cmp(&(&b.family_name, &b.given_name, b.id)));
    Ok(Json(call.query.page(employees.into_iter().map(EmployeeBody::from).collect())))
}

pub(super) async fn add(call: Call<Nothing, Nothing, EmployeeInput>) -> Result<Json<EmployeeBody>, ApiError> {
    let Call { app, body, .. } = call;
    let mut violations = Violations::default();
    let locale = body.locale(&app.catalogue, None, &mut violations);
    violations.finish()?;
    let stored = app.store.change(move |change| {
        if change.all::<Employee>()?.len() >= MAX_EMPLOYEES {
            let detail = format!("The sandbox stores at most {MAX_EMPLOYEES} employees.");
            return Err(ApiError::conflict("full", "Full", detail));
        }
        let employee = Employee {
            id: Uuid::new_v4(),
            given_name: body.given_name,
            family_name: body.family_name,
            username: body.username,
            enabled: true,
            correspondence_locale: locale,
        };
        change.put(&employee)?;
        Ok(employee)
    });
    Ok(Json(stored.await?.into()))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct EmployeeId {
    /// A UUID, or "me".
    #[serde(rename = "employeeId")]
    #[schemars(length(min = 1, max = 36))]
    id: String,
}

impl EmployeeId {
    fn find(&self, read: &impl Read, catalogue: &Catalogue) -> Result<Employee, ApiError> {
        let id = if self.id == "me" { Some(catalogue.customer.id) } else { self.id.parse().ok() };
        let found = match id {
            Some(id) => read.get::<Employee>(id.as_bytes())?,
            None => None,
        };
        found.ok_or_else(|| ApiError::not_found("employee"))
    }
}

pub(super) async fn one(call: Call<EmployeeId, Nothing, Nothing>) -> Result<Json<EmployeeBody>, ApiError> {
    let employee = call.path.find(&call.app.store.view()?, &call.app.catalogue)?;
    Ok(Json(employee.into()))
}

pub(super) async fn change(
    call: Call<EmployeeId, Nothing, EmployeeInput>,
) -> Result<Json<EmployeeBody>, ApiError> {
    let Call { app, path, body, .. } = call;
    let catalogue = app.catalogue.clone();
    let stored = app.store.change(move |change| {
        let mut employee = path.find(change, &catalogue)?;
        let mut violations = Violations::default();
        let is_kept = body.username.is_some() || employee.username.is_none();
        violations.check(is_kept, "username", "cannot be unset");
        let current = Some(employee.correspondence_locale.as_str());
        employee.correspondence_locale = body.locale(&catalogue, current, &mut violations);
        violations.finish()?;
        employee.given_name = body.given_name;
        employee.family_name = body.family_name;
        employee.username = body.username;
        employee.enabled = body.enabled.unwrap_or(employee.enabled);
        change.put(&employee)?;
        Ok::<_, ApiError>(employee)
    });
    Ok(Json(stored.await?.into()))
}
