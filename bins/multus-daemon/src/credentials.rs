//! The node's own certificate, kept valid.

use std::{
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use multus_core::kubernetes::{Access, ApiCluster, Error, Limits, NodeCertificate};
use tracing::{error, info, warn};

/// For somebody to approve the first one.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between tries that fail, and while a clock is being set.
const PAUSE: Duration = Duration::from_secs(10);
/// It waits, and sometimes asks for a certificate.
const STACK: usize = 1 << 20;

/// Access by a certificate that is valid, which is asked for where there is none. Not to be called within a runtime.
pub(crate) fn obtain(certificate: &NodeCertificate) -> Result<Access, Error> {
    let now = SystemTime::now();
    if certificate.renewal(now)?.is_none() {
        certificate.renew(now, Limits::default(), PATIENCE)?;
    }
    certificate.access()
}

/// Renews the certificate in time, for ever, and has `cluster` use it.
pub(crate) fn keep(certificate: NodeCertificate, cluster: Arc<ApiCluster>) -> std::io::Result<()> {
    let renew = move || loop {
        let now = SystemTime::now();
        let due = certificate.renewal(now).ok().flatten().unwrap_or(now);
        // Step by step, since clocks are set.
        match due.duration_since(now) {
            Ok(rest) if !rest.is_zero() => thread::sleep(rest.min(PAUSE)),
            _ => {
                let renewed = certificate.renew(now, Limits::default(), PATIENCE).and_then(|()| certificate.access());
                match renewed.and_then(|access| cluster.reconnect(&access)) {
                    Ok(()) => {
                        info!("the node's certificate is renewed");
                        let now = SystemTime::now();
                        if !certificate.renewal(now).is_ok_and(|due| due.is_some_and(|due| due > now)) {
                            warn!("the new certificate is not valid at this time; is this node's clock right?");
                            thread::sleep(NodeCertificate::PAUSE_OF_WRONG_CLOCK);
                        }
                    }
                    Err(error) => {
                        error!(%error, "the node's certificate is not renewed");
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
    };
    thread::Builder::new().name("certificate".to_owned()).stack_size(STACK).spawn(renew).map(drop)
}
