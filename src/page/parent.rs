//! One parent task: a bar per phase, and its children.

use askama::Template;

use super::{Content, PageError, Params, View, overview::ParentCard};
use crate::{
    feed,
    model::{Status, Task},
    store::search::{self, TaskQuery},
};

/// Children shown: the newest, and the newest that failed.
const CHILDREN: i64 = 50;

#[derive(Template)]
#[template(path = "parent.html")]
struct ParentPage {
    task: Task,
    card: Option<ParentCard>,
    children: Vec<Task>,
    failed: Vec<Task>,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing = || PageError::NotFound("there is no such task; it may have been deleted".to_owned());
    let id = params.id.ok_or_else(missing)?;
    let pool = view.store.pool();
    let task = search::task(pool, id).await?.ok_or_else(missing)?;
    let of_parent = |statuses| TaskQuery { parents: vec![id], statuses, limit: CHILDREN, ..TaskQuery::default() };
    let children = search::tasks(pool, &of_parent(Vec::new())).await?;
    let failed = search::tasks(pool, &of_parent(vec![Status::Failed])).await?;
    let now = view.clock.now();
    let card = feed::read(&view.board).parents.get(id).map(|parent| ParentCard::new(id, parent, now));
    let name = super::format::clip(task.title.as_deref().unwrap_or(task.task_type.as_str()), 80);
    let title = match &card {
        Some(card) => format!("({} %) {name}", card.total.percent()),
        None => name,
    };
    Ok(Content { title, html: ParentPage { task, card, children, failed }.render()? })
}
