//! The list of tasks: filters in the URL, paged by key.

use askama::Template;

use super::{Content, PageError, Params, View, format};
use crate::{
    model::{Status, Task},
    store::search,
};

#[derive(Template)]
#[template(path = "tasks.html")]
struct Tasks<'a> {
    tasks: Vec<Task>,
    statuses: [Status; 8],
    params: &'a Params,
    text: &'a str,
    is_filtered: bool,
    is_first: bool,
    first_url: String,
    next_url: Option<String>,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let mut query = params.tasks.clone();
    let limit = query.limit;
    query.limit += 1;
    let mut tasks = search::tasks(view.store.pool(), &query).await?;
    let more = i64::try_from(tasks.len()).unwrap_or(i64::MAX) > limit;
    tasks.truncate(usize::try_from(limit).unwrap_or_default());
    let without_cursor: Vec<_> = params.pairs.iter().filter(|(name, _)| name != "cursor").cloned().collect();
    let next_url = tasks.last().filter(|_| more).map(|task| {
        let mut pairs = without_cursor.clone();
        pairs.push(("cursor".to_owned(), search::cursor(task)));
        format!("/tasks?{}", format::query(&pairs))
    });
    let page = Tasks {
        tasks,
        statuses: Status::ALL,
        params,
        text: params.tasks.text.as_deref().unwrap_or_default(),
        is_filtered: !params.pairs.is_empty(),
        is_first: params.tasks.before.is_none(),
        first_url: format!("/tasks?{}", format::query(&without_cursor)),
        next_url,
    };
    Ok(Content { title: "Tasks".to_owned(), html: page.render()? })
}
