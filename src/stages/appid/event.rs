//! What was read of an SSH connection as the body of an event.

use super::banners::parts;
use crate::event::facts::{Ssh, SshEnd, Text};

/// The body. Allocates: for those who know that it is wanted.
pub fn ssh([client, server]: [Option<&[u8]>; 2]) -> Ssh {
    let end = |line: Option<&[u8]>| {
        let (version, software) = parts(line?)?;
        Some(SshEnd { proto_version: Text::new(version), software_version: Text::new(software), hassh: None })
    };
    Ssh { client: end(client), server: end(server) }
}
