//! The settings of the protocol state machine, from those of the session.

use std::net::IpAddr;

use super::listener_role::ListenerRole;
use super::services::SessionServices;
use super::settings::Settings;
use crate::smtp;

/// The settings for a client at `address` that connects now.
pub(super) fn server_settings(
    services: &SessionServices,
    settings: &Settings,
    role: ListenerRole,
    address: IpAddr,
) -> smtp::Settings {
    smtp::Settings {
        hostname: settings.hostname.clone(),
        kind: role.kind(),
        message_octets_max: settings.message_octets_max,
        recipients_max: settings.recipients_max,
        bare_line_ends: settings.line_ends_for(address),
        has_tls: services.tls.is_available(),
        has_users: services.policy.has_logins(),
        has_scram: services.policy.all_have_scram(),
        errors_max: settings.errors_max,
    }
}
