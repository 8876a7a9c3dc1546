//! Routes with the scope that they need.

use utoipa_axum::router::UtoipaMethodRouter;

use super::state::AppState;
use crate::model::access::Scope;

/// The routes of one file, each with the scope that it needs.
pub(super) type Routes = Vec<(Scope, UtoipaMethodRouter<AppState>)>;
