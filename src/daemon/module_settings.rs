//! Turns the configuration into the settings of the other modules.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::alias::LocalPartRules;
use crate::config::{self, Config};
use crate::courier::smtp;
use crate::inbound::{
    self, HookFallback, HourlyLimits, SenderRestriction, SessionHookSettings, SessionLimitSettings,
};
use crate::queue;
use crate::sys::StopFlag;

/// How local parts of local domains are compared.
#[must_use]
pub fn local_part_rules(config: &Config) -> LocalPartRules {
    LocalPartRules {
        suffix_separators: config.aliases.suffix_separators.clone(),
        drop_characters: config.aliases.drop_characters.clone(),
    }
}

pub(super) fn queue_settings(config: &Config) -> queue::Settings {
    let defaults = queue::Settings::default();
    let slack = Duration::from_secs(30);
    let local = match &config.delivery.local {
        config::LocalDelivery::Maildir(_) | config::LocalDelivery::Lmtp(_) => defaults.local_attempt_timeout,
        config::LocalDelivery::Command(command) => command.timeout + slack,
    };
    queue::Settings {
        messages_max: config.queue.messages_max,
        lifetime: config.queue.lifetime,
        retry_delays: config.queue.retry.clone(),
        delay_warning: config.queue.delay_warning,
        local_threads: config.queue.local_threads,
        remote_threads: config.queue.remote_threads,
        attempts_per_destination_max: config.queue.attempts_per_destination_max,
        probe_interval_max: config.queue.probe_interval_max,
        local_attempt_timeout: local
            .max(config.delivery.pipe.timeout + slack)
            .max(defaults.local_attempt_timeout),
        ..defaults
    }
}

pub(super) fn smtp_courier_settings(config: &Config) -> smtp::Settings {
    smtp::Settings {
        port: config.delivery.smtp.port,
        hello_mode: match config.delivery.smtp.hello {
            config::HelloSetting::SenderDomain => smtp::HelloMode::SenderDomain,
            config::HelloSetting::Hostname => smtp::HelloMode::Hostname,
        },
        via: config.delivery.smtp.via.clone(),
        listen_addresses: config.listen.smtp.iter().map(listening_address).collect(),
        messages_per_connection_max: u32::try_from(config.delivery.smtp.messages_per_connection_max)
            .unwrap_or(u32::MAX),
        ..smtp::Settings::new(config.hostname.clone())
    }
}

/// The address at which other servers reach this one. A socket of the service manager counts as port 25:
/// its address is not known before the start.
fn listening_address(listener: &config::ListenEntry) -> SocketAddr {
    match listener.source {
        config::SocketSource::Address(address) => address,
        config::SocketSource::Systemd => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 25)),
    }
}

pub(super) fn session_settings(config: &Config) -> inbound::Settings {
    let limits = &config.limits;
    inbound::Settings {
        hostname: config.hostname.clone(),
        message_octets_max: limits.message_octets_max,
        recipients_max: limits.recipients_max,
        line_end_repair_networks: config.leniency.bare_line_ends.clone(),
        received_max: limits.received_max,
        relay_networks: config.relay.networks.clone(),
        greeting_delay: limits.greeting_delay,
        errors_max: u32::try_from(limits.errors_max).unwrap_or(u32::MAX),
        command_timeout: limits.command_timeout,
        message_timeout: limits.message_timeout,
        session_timeout: limits.session_timeout,
    }
}

pub(super) fn session_limit_settings(config: &Config) -> SessionLimitSettings {
    let limits = &config.limits;
    SessionLimitSettings {
        sessions_max: limits.sessions_max,
        sessions_per_address_max: limits.sessions_per_address_max,
        sessions_per_network_max: limits.sessions_per_network_max.max(limits.sessions_per_address_max),
    }
}

pub(super) fn hourly_limits(config: &Config) -> HourlyLimits {
    let (address, login) = (&config.limits.address_per_hour, &config.limits.login_per_hour);
    HourlyLimits {
        address_connections: address.connections,
        address_messages: address.messages,
        address_recipients: address.recipients,
        address_unknown_recipients: address.unknown_recipients,
        login_messages: login.messages,
        login_recipients: login.recipients,
        exempt_networks: config.relay.networks.clone(),
    }
}

pub(super) fn sender_restriction(config: &Config) -> SenderRestriction {
    match config.submission.sender {
        config::SenderSetting::Bound => SenderRestriction::OwnAddresses,
        config::SenderSetting::Any => SenderRestriction::AnyAddress,
    }
}

pub(super) fn hook_settings(config: &Config, config_dir: &Path, stop: &Arc<StopFlag>) -> SessionHookSettings {
    SessionHookSettings {
        config_dir: config_dir.to_owned(),
        fallback: match config.hooks.on_failure {
            config::HookFailureSetting::Defer => HookFallback::Defer,
            config::HookFailureSetting::Accept => HookFallback::Accept,
        },
        rcpt_timeout: config.hooks.rcpt_timeout,
        post_data_timeout: config.hooks.post_data_timeout,
        stop: Arc::clone(stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;

    #[test]
    fn the_defaults_of_the_configuration_are_those_of_the_queue() {
        let config = Config::defaults(Domain::parse("mail.here.example").unwrap());
        assert_eq!(queue_settings(&config), queue::Settings::default());
    }
}
