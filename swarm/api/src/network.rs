//! Networks and ports as they appear inside services and tasks. No addresses are chosen here.

use crate::go::{Driver, Labels, Timestamp, Version, null_default};

open_enum! {
    /// How a service's name resolves.
    pub enum ResolutionMode {
        /// To one virtual address; the default.
        Vip = "vip",
        /// To the tasks' addresses.
        DnsRr = "dnsrr",
    }

    /// A transport protocol.
    pub enum Protocol {
        /// TCP; the default.
        Tcp = "tcp",
        /// UDP
        Udp = "udp",
        /// SCTP
        Sctp = "sctp",
    }

    /// Where a port is published.
    pub enum PublishMode {
        /// On every node; the default.
        Ingress = "ingress",
        /// On the task's node only.
        Host = "host",
    }
}

wire! {
    /// What a service really has: ports and virtual addresses.
    #[derive(Eq)]
    pub struct Endpoint {
        spec: EndpointSpec = "Spec",
        #[serde(deserialize_with = "null_default")]
        ports: Vec<PortConfig> = "Ports" omitempty,
        #[serde(deserialize_with = "null_default")]
        virtual_ips: Vec<EndpointVirtualIp> = "VirtualIPs" omitempty,
    }

    /// How a service is to be reached.
    #[derive(Eq)]
    pub struct EndpointSpec {
        mode: ResolutionMode = "Mode" omitempty,
        #[serde(deserialize_with = "null_default")]
        ports: Vec<PortConfig> = "Ports" omitempty,
    }

    /// One published port.
    #[derive(Eq, PartialOrd, Ord)]
    pub struct PortConfig {
        name: String = "Name" omitempty,
        protocol: Protocol = "Protocol" omitempty,
        target_port: u32 = "TargetPort" omitempty,
        /// 0 lets the managers choose.
        published_port: u32 = "PublishedPort" omitempty,
        publish_mode: PublishMode = "PublishMode" omitempty,
    }

    /// A service's address on one network.
    #[derive(Eq)]
    pub struct EndpointVirtualIp {
        network_id: String = "NetworkID" omitempty,
        /// CIDR form.
        addr: String = "Addr" omitempty,
    }

    /// A network that tasks are attached to.
    #[derive(Eq)]
    pub struct NetworkAttachmentConfig {
        /// Id or name.
        target: String = "Target" omitempty,
        #[serde(deserialize_with = "null_default")]
        aliases: Vec<String> = "Aliases" omitempty,
        #[serde(deserialize_with = "null_default")]
        driver_opts: Labels = "DriverOpts" omitempty,
    }

    /// A cluster network as tasks show it.
    pub struct Network {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        spec: NetworkSpec = "Spec",
        driver_state: Driver = "DriverState",
        ipam_options: Option<IpamOptions> = "IPAMOptions" omitempty,
    }

    /// The user's wishes for a network.
    #[derive(Eq)]
    pub struct NetworkSpec {
        name: String = "Name" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
        driver_configuration: Option<Driver> = "DriverConfiguration" omitempty,
        ipv6_enabled: bool = "IPv6Enabled" omitempty,
        internal: bool = "Internal" omitempty,
        attachable: bool = "Attachable" omitempty,
        ingress: bool = "Ingress" omitempty,
        ipam_options: Option<IpamOptions> = "IPAMOptions" omitempty,
        config_from: Option<NetworkConfigReference> = "ConfigFrom" omitempty,
        scope: String = "Scope" omitempty,
    }

    /// The node-local network that configures this one.
    #[derive(Eq)]
    pub struct NetworkConfigReference {
        network: String = "Network",
    }

    /// Address management of a network.
    #[derive(Eq)]
    pub struct IpamOptions {
        driver: Driver = "Driver",
        #[serde(deserialize_with = "null_default")]
        configs: Vec<IpamConfig> = "Configs" omitempty,
    }

    /// One subnet.
    #[derive(Eq)]
    pub struct IpamConfig {
        subnet: String = "Subnet" omitempty,
        range: String = "Range" omitempty,
        gateway: String = "Gateway" omitempty,
    }

    /// `POST /networks/create`
    #[derive(Eq)]
    pub struct CreateRequest {
        name: String = "Name",
        driver: String = "Driver",
        scope: String = "Scope",
        /// `None` where the client leaves it to the engine.
        enable_ipv4: Option<bool> = "EnableIPv4" omitempty,
        enable_ipv6: Option<bool> = "EnableIPv6" omitempty,
        ipam: Option<Ipam> = "IPAM" omitempty,
        internal: bool = "Internal",
        attachable: bool = "Attachable",
        ingress: bool = "Ingress",
        config_only: bool = "ConfigOnly",
        config_from: Option<NetworkConfigReference> = "ConfigFrom" omitempty,
        #[serde(deserialize_with = "null_default")]
        options: Labels = "Options",
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
    }

    /// Address management as clients of networks write and read it.
    #[derive(Eq)]
    pub struct Ipam {
        driver: String = "Driver",
        options: Option<Labels> = "Options",
        #[serde(deserialize_with = "null_default")]
        config: Vec<IpamPool> = "Config",
    }

    /// One subnet as clients of networks write and read it.
    #[derive(Eq)]
    pub struct IpamPool {
        subnet: String = "Subnet" omitempty,
        ip_range: String = "IPRange" omitempty,
        gateway: String = "Gateway" omitempty,
        #[serde(deserialize_with = "null_default")]
        auxiliary: Labels = "AuxiliaryAddresses" omitempty,
    }
}
