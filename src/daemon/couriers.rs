//! Builds the couriers.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::module_settings::smtp_courier_settings;
use super::reloader::Reloader;
use super::system_interfaces::SystemInterfaces;
use crate::config::{self, Config};
use crate::courier::{
    CommandSettings, Courier, Exit75, LineEnds, LmtpCourier, LmtpSettings, MaildirCourier, MaildirSettings,
    PipeSettings, ProgramCourier, smtp,
};
use crate::domaininfo::DomainInfo;
use crate::queue::Couriers;

pub(super) fn couriers(
    config: &Config,
    config_dir: &Path,
    system: &SystemInterfaces,
    reloader: &Reloader,
    domaininfo: &Arc<DomainInfo>,
) -> Couriers {
    let parts = smtp::SmtpCourierParts {
        resolver: Arc::new(system.stub_resolver(config)),
        dial: Arc::clone(&system.connector),
        domaininfo: Arc::clone(domaininfo),
        tls: Arc::clone(&reloader.tls_client),
        random: Arc::clone(&system.random),
        clock: Arc::clone(&system.clock),
        router: Arc::clone(&reloader.lookup_tables.router),
        credentials: Arc::clone(&reloader.logins),
    };
    Couriers {
        local: local_courier(config, config_dir, system),
        program: Arc::new(pipe_courier(config, config_dir, system)),
        smtp: Arc::new(smtp::SmtpCourier::new(
            swappable(smtp_courier_settings(config)),
            parts,
            &system.metrics,
        )),
    }
}

/// Settings that a courier reads once for each attempt, so that they can be replaced between two.
fn swappable<T>(settings: T) -> Arc<ArcSwap<T>> {
    Arc::new(ArcSwap::from_pointee(settings))
}

fn local_courier(config: &Config, config_dir: &Path, system: &SystemInterfaces) -> Arc<dyn Courier> {
    let clock = Arc::clone(&system.clock);
    match &config.delivery.local {
        config::LocalDelivery::Maildir(settings) => Arc::new(MaildirCourier::new(
            swappable(MaildirSettings { path: settings.path.clone(), hostname: config.hostname.clone() }),
            Arc::clone(&system.disk),
            Arc::clone(&system.random),
            clock,
        )),
        config::LocalDelivery::Command(settings) => Arc::new(ProgramCourier::command(
            swappable(CommandSettings {
                program: settings.program.clone(),
                arguments: settings.arguments.clone(),
                line_ends: match settings.line_ends {
                    config::LineEndsSetting::Lf => LineEnds::Lf,
                    config::LineEndsSetting::Crlf => LineEnds::CrLf,
                },
                deadline: settings.timeout,
                directory: config_dir.to_owned(),
            }),
            clock,
            Arc::clone(&system.stop),
        )),
        config::LocalDelivery::Lmtp(settings) => Arc::new(LmtpCourier::new(
            swappable(LmtpSettings { endpoint: settings.address.clone(), hostname: config.hostname.clone() }),
            Arc::clone(&system.connector),
            clock,
        )),
    }
}

fn pipe_courier(config: &Config, config_dir: &Path, system: &SystemInterfaces) -> ProgramCourier {
    let pipe = &config.delivery.pipe;
    let settings = PipeSettings {
        deadline: pipe.timeout,
        exit_75: match pipe.exit_75 {
            config::Exit75Setting::Permanent => Exit75::Permanent,
            config::Exit75Setting::Transient => Exit75::Transient,
        },
        directory: config_dir.to_owned(),
    };
    ProgramCourier::pipe(swappable(settings), Arc::clone(&system.clock), Arc::clone(&system.stop))
}
