//! What the tasks of the demo carry: payloads, results and errors that are worth reading.

use serde_json::{Value, json};

/// Customers; a task belongs to one of them.
const TENANTS: [&str; 4] = ["mueller", "acme", "nordwind", "globex"];
/// Errors: message, and whether they are retryable.
const ERRORS: [(&str, bool); 7] = [
    ("connection to object-store timed out after 5000 ms", true),
    ("HTTP 503 from smtp-relay: try again later", true),
    ("HTTP 429 from comfyui: rate limited", true),
    (
        "psycopg.errors.DeadlockDetected: deadlock detected\nDETAIL:  Process 4814 waits for ShareLock on transaction 99123; blocked by process 4830.\nHINT:  See server log for query details.\n\nTraceback (most recent call last):\n  File \"/srv/worker/main.py\", line 118, in run\n    result = handler(task.payload)\n  File \"/srv/worker/handlers/invoice.py\", line 64, in create_invoice\n    with db.transaction():\n  File \"/srv/worker/db.py\", line 31, in transaction\n    yield cursor",
        true,
    ),
    ("OSError: [Errno 28] No space left on device: '/var/tmp/render'", true),
    ("ValueError: invalid literal for int() with base 10: '<script>alert(1)</script>'", false),
    (
        "Error: checksum mismatch: expected 9f86d081, got 60303ae2\n    at verify (/srv/media/dist/checksum.js:42:11)\n    at async transcode (/srv/media/dist/transcode.js:88:5)\n    at async Worker.run (/srv/media/dist/worker.js:19:20)",
        false,
    ),
];

/// A tenant.
pub(super) fn tenant() -> &'static str {
    TENANTS[fastrand::usize(..TENANTS.len())]
}

/// An error, and whether it is retryable.
pub(super) fn error() -> (&'static str, bool) {
    ERRORS[fastrand::usize(..ERRORS.len())]
}

/// The payload of a task of a type.
pub(super) fn payload(kind: &str, number: u32, tenant: &str) -> Value {
    match kind {
        "send-mail" => json!({
            "to": format!("kunde{number}@example.com"),
            "template": "order-confirmation",
            "locale": "de-DE",
            "order": { "id": format!("ORD-{number}"), "total_cents": number * 7, "currency": "EUR", "paid": !number.is_multiple_of(5) },
        }),
        "create-invoice" => json!({
            "order": {
                "id": format!("ORD-{number}"),
                "lines": [
                    { "sku": format!("A-{}", number % 90), "quantity": number % 4 + 1, "price_cents": 1_990 },
                    { "sku": "SHIPPING", "quantity": 1, "price_cents": 490 },
                ],
                "customer": { "id": number / 3, "name": "Müller GmbH", "city": "Köln", "vat": null },
                "currency": "EUR",
            },
            "note": "Kunde bittet um Rechnung vor dem 1.12.",
            "trace_id": format!("{:032x}", fastrand::u128(..)),
        }),
        "transcode" | "render-preview" => json!({
            "source": format!("s3://{tenant}-media/{number}.mov"),
            "profile": { "codec": "h265", "height": 1080, "bitrate_kbps": 4_500 },
            "callback_url": "https://shop.example.com/hooks/media",
        }),
        _ => {
            json!({ "entity": kind, "number": number, "source": format!("s3://{tenant}/{number}.bin"), "dry_run": false })
        }
    }
}

/// The result of a task.
pub(super) fn result() -> Value {
    json!({
        "ok": true,
        "output": { "bytes": fastrand::u32(1_000..9_000_000), "sha256": format!("{:016x}…", fastrand::u64(..)) },
        "warnings": if fastrand::u8(..8) == 0 { json!(["font Inter not found, DejaVu Sans used"]) } else { json!([]) },
    })
}
