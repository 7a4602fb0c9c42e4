//! Recognizes this machine's own hosts and its metadata service, which no proxy can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Host;

/// The names of the metadata services of Google and AWS. Those of Azure and of containers have only addresses.
const METADATA_NAMES: [&str; 5] =
    ["metadata", "metadata.goog", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"];

/// The prefixes of the private IPv6 addresses of the metadata services of AWS and Google.
const METADATA_NETWORKS: [[u16; 2]; 2] = [[0xfd00, 0x0ec2], [0xfd20, 0x00ce]];

/// Whether `host` is this machine, independent of its resolver.
pub fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref() == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// Whether requests to `host` use no proxy: this machine and its metadata service.
pub fn is_direct<S: AsRef<str>>(host: &Host<S>) -> bool {
    let address = match host {
        Host::Domain(name) => {
            let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
            return name == "localhost" || name.ends_with(".localhost") || METADATA_NAMES.contains(&name.as_str());
        }
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address).to_canonical(),
    };
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            address.is_loopback()
                || address.is_unicast_link_local()
                || address == Ipv6Addr::UNSPECIFIED
                || METADATA_NETWORKS.contains(&[first, second])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(host: &str) -> bool {
        is_direct(&Host::parse(host).unwrap())
    }

    #[test]
    fn this_machine_and_its_metadata_service_need_no_proxy() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "bucket.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[fd20:ce::254]",
            "[fe80::a9fe:a9fe]",
            "metadata.google.internal",
            "metadata.google.internal.",
        ] {
            assert!(direct(host), "{host}");
        }
        for host in [
            "api.decagon.ai",
            "localhost.example.com",
            "mylocalhost",
            "metadata.example.com",
            "10.0.0.1",
            "192.168.1.1",
            "169.253.0.1",
            "[fd00:ec3::254]",
            "[2001:db8::1]",
        ] {
            assert!(!direct(host), "{host}");
        }
    }
}
