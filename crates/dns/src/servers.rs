//! The servers of a resolv.conf(5).

use std::net::IpAddr;

/// Servers that are asked, as with the reference and glibc.
pub const MAX_SERVERS: usize = 3;

/// The first [`MAX_SERVERS`] addresses of `nameserver` lines; zones (`fe80::1%eth0`) are left out.
pub fn of(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    let words = lines.filter(|rest| rest.starts_with([' ', '\t'])).filter_map(|rest| rest.split_whitespace().next());
    words.filter_map(|word| word.split('%').next()?.parse().ok()).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let text = "# nameserver 1.1.1.1\nnameserver 10.0.0.1\nnameserverx 2.2.2.2\nsearch a\nnameserver\t::1 # c\n\
                    nameserver bogus\nnameserver fe80::1%eth0\nnameserver 10.0.0.4\n";
        let servers: Vec<String> = of(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1", "::1", "fe80::1"]);
    }
}
