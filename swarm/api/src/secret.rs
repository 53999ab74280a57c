//! Secrets and configs: small files that the cluster keeps. Data never shows in Debug.

use crate::go::{Base64, Driver, Labels, Timestamp, Version, null_default};

wire! {
    /// POST /secrets/create
    #[derive(Eq)]
    pub struct SecretSpec {
        name: String = "Name" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
        /// Write-only.
        data: Base64 = "Data" omitempty,
        /// A plugin that knows the value.
        driver: Option<Driver> = "Driver" omitempty,
        templating: Option<Driver> = "Templating" omitempty,
    }

    /// GET /secrets/{id}
    #[derive(Eq)]
    pub struct Secret {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        spec: SecretSpec = "Spec",
    }

    /// POST /configs/create
    #[derive(Eq)]
    pub struct ConfigSpec {
        name: String = "Name" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
        data: Base64 = "Data" omitempty,
        templating: Option<Driver> = "Templating" omitempty,
    }

    /// GET /configs/{id}
    #[derive(Eq)]
    pub struct Config {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        spec: ConfigSpec = "Spec",
    }

    /// The answer to a create of a secret or a config.
    #[derive(Eq)]
    pub struct IdResponse {
        id: String = "ID",
    }
}
