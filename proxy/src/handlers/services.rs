//! `/services`. Specs pass the daemon layer here; what the managers refuse comes from the leader.

use std::hash::{BuildHasher, Hasher, RandomState};

use http::StatusCode;
use skep_api::service::{ServiceCreateResponse, ServiceSpec, ServiceUpdateResponse};
use skep_api::{Error, Secret};
use skep_core::command::{AuthFrom, Command, Reply as Done};
use skep_core::{State, find, names, validate, wire};

use super::{Cluster, networks, odd_reply, params};
use crate::reply::Reply;
use crate::swarm::{OwnedRequest, Query};

/// How often another random name is tried when one is taken.
const NAME_TRIES: usize = 8;

pub(super) async fn list<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    // Older clients do not know the parameter; what they send under this name is not looked at.
    let status = !request.version.before(41) && params::flag(&request.query, "status")?;
    let view = node.view().await?;
    let mut services = wire::services(&view.state, &filters, status)?;
    if request.version.before(25) {
        services.iter_mut().for_each(with_old_networks);
    }
    Ok(Reply::json(StatusCode::OK, &services))
}

pub(super) async fn inspect<C: Cluster>(
    node: &C,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let insert_defaults = params::flag(&request.query, "insertDefaults")?;
    let view = node.view().await?;
    let service = find::service(&view.state, id)?;
    let mut service = wire::service(service, insert_defaults);
    if request.version.before(25) {
        with_old_networks(&mut service);
    }
    Ok(Reply::json(StatusCode::OK, &service))
}

/// Before API 1.25 networks stood in the service's spec and not in its template.
fn with_old_networks(service: &mut skep_api::service::Service) {
    for spec in std::iter::once(&mut service.spec).chain(&mut service.previous_spec) {
        spec.networks.clone_from(&spec.task_template.networks);
    }
}

pub(super) async fn create<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let mut spec: ServiceSpec = params::body(request)?;
    spec.adjust_for(request.version);
    let registry_auth = params::registry_auth(request);
    let view = node.view().await?;
    networks::resolve(&view.state, &mut spec)?;
    let mut spec = Box::new(validate::service_spec(spec)?);
    if spec.name.is_empty() {
        spec.name = random_name(&view.state);
    }
    let warnings = pin(node, &mut spec, registry_auth.clone(), request).await;
    match node
        .execute(Command::CreateService {
            spec,
            registry_auth,
        })
        .await?
    {
        Done::Created(id) => {
            let response = ServiceCreateResponse {
                id: id.to_string(),
                warnings,
            };
            Ok(Reply::json(StatusCode::CREATED, &response))
        }
        other => Err(odd_reply(&other)),
    }
}

/// Names the image by its digest for clients that are too old to do so themselves. Returns what to
/// warn them of if the registry does not tell it: then every node has to see for itself.
async fn pin<C: Cluster>(
    node: &C,
    spec: &mut ServiceSpec,
    auth: Option<Secret>,
    request: &OwnedRequest,
) -> Vec<String> {
    let container = spec.task_template.container_spec.as_mut();
    let Some(container) = container.filter(|_| request.version.before(30)) else {
        return Vec::new();
    };
    let image = &mut container.image;
    let Some(tagged) = validate::to_pin(image) else {
        return Vec::new();
    };
    match node.digest(tagged.clone(), auth).await {
        Ok(digest) => {
            *image = format!("{tagged}@{digest}");
            Vec::new()
        }
        Err(why) => {
            tracing::debug!("no digest of {image}: {why}");
            vec![format!(
                "image {image} could not be accessed on a registry to record\nits digest. Each node \
                 will access {image} independently,\npossibly leading to different nodes running \
                 different\nversions of the image.\n"
            )]
        }
    }
}

/// A name that no service has, if one is found soon; otherwise the leader refuses the last one.
fn random_name(state: &State) -> String {
    let mut name = String::new();
    for _ in 0..NAME_TRIES {
        // The standard library seeds its hashers from the operating system: good enough for names.
        let [adjective, surname, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
        name = names::from_bytes(adjective, surname);
        if state.service_named(&name).is_none() {
            break;
        }
    }
    name
}

pub(super) async fn update<C: Cluster>(
    node: &C,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let mut spec: ServiceSpec = params::body(request)?;
    let version = params::version(&request.query, "service")?;
    let auth_from = auth_from(&request.query)?;
    spec.adjust_for(request.version);
    let registry_auth = params::registry_auth(request);
    let view = node.view().await?;
    networks::resolve(&view.state, &mut spec)?;
    let named = !spec.name.is_empty();
    let mut spec = Box::new(validate::service_spec(spec)?);
    let service = find::service(&view.state, id)?;
    if !named {
        // The original invents a name here as well, and then refuses to rename the service.
        spec.name = random_name(&view.state);
    }
    let id = service.id.clone();
    // In the original these credentials are looked up before the rollback option is read.
    if registry_auth.is_none()
        && auth_from == AuthFrom::PreviousSpec
        && service.previous_spec.is_none()
    {
        return Err(Error::system("service does not have a previous spec"));
    }
    let rollback = rollback(&request.query)?;
    let kept = match auth_from {
        AuthFrom::Spec => &service.registry_auth,
        AuthFrom::PreviousSpec => &service.previous_registry_auth,
    };
    let auth = registry_auth.clone().or_else(|| kept.clone());
    let warnings = pin(node, &mut spec, auth, request).await;
    let command = Command::UpdateService {
        id,
        version,
        spec,
        registry_auth,
        auth_from,
        rollback,
    };
    node.execute(command).await?;
    Ok(Reply::json(
        StatusCode::OK,
        &ServiceUpdateResponse { warnings },
    ))
}

fn auth_from(query: &Query) -> Result<AuthFrom, Error> {
    match query.get("registryAuthFrom").unwrap_or_default() {
        "" | "spec" => Ok(AuthFrom::Spec),
        "previous-spec" => Ok(AuthFrom::PreviousSpec),
        other => Err(Error::invalid(format!(
            "invalid registryAuthFrom '{other}'"
        ))),
    }
}

fn rollback(query: &Query) -> Result<bool, Error> {
    match query.get("rollback").unwrap_or_default() {
        "" | "none" => Ok(false),
        "previous" => Ok(true),
        other => Err(Error::system(format!(
            "unrecognized rollback option {other}"
        ))),
    }
}

pub(super) async fn remove<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    let id = find::service(&view.state, id)?.id.clone();
    node.execute(Command::RemoveService { id }).await?;
    Ok(Reply::empty(StatusCode::OK))
}
