//! What a registry says of an image (GET /distribution/{name}/json). Asks no registry itself.

use crate::go::{Labels, null_default};

wire! {
    /// The digest behind a tag and the platforms it serves.
    #[derive(Eq)]
    pub struct DistributionInspect {
        descriptor: Descriptor = "Descriptor",
        #[serde(deserialize_with = "null_default")]
        platforms: Vec<OciPlatform> = "Platforms",
    }

    /// An OCI content descriptor.
    #[derive(Eq)]
    pub struct Descriptor {
        media_type: String = "mediaType" omitempty,
        /// `sha256:...`
        digest: String = "digest" omitempty,
        size: i64 = "size" omitempty,
        #[serde(deserialize_with = "null_default")]
        urls: Vec<String> = "urls" omitempty,
        #[serde(deserialize_with = "null_default")]
        annotations: Labels = "annotations" omitempty,
    }

    /// An OCI platform (its keys are lower-case, unlike [`crate::task::Platform`]).
    #[derive(Eq)]
    pub struct OciPlatform {
        architecture: String = "architecture",
        os: String = "os",
        os_version: String = "os.version" omitempty,
        #[serde(deserialize_with = "null_default")]
        os_features: Vec<String> = "os.features" omitempty,
        variant: String = "variant" omitempty,
    }
}
