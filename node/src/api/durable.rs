//! Between what is kept of a turn (`caxton_proto::shard`) and the bodies of HTTP, which show it.

use caxton_proto::shard;

use super::messages::{ApprovalInfo, Attachment, AttachmentInfo, Content, Route};

impl From<shard::Attachment> for Attachment {
    fn from(shard::Attachment { name, media_type, content }: shard::Attachment) -> Self {
        let content = match content {
            shard::Content::Text(text) => Content::Text(text),
            shard::Content::Base64(text) => Content::Base64(text),
        };
        Self { name, media_type, content }
    }
}

impl From<Attachment> for shard::Attachment {
    fn from(Attachment { name, media_type, content }: Attachment) -> Self {
        let content = match content {
            Content::Text(text) => shard::Content::Text(text),
            Content::Base64(text) => shard::Content::Base64(text),
        };
        Self { name, media_type, content }
    }
}

impl From<shard::AttachmentInfo> for AttachmentInfo {
    fn from(shard::AttachmentInfo { name, media_type, bytes }: shard::AttachmentInfo) -> Self {
        Self { name, media_type, bytes: usize::try_from(bytes).unwrap_or(usize::MAX) }
    }
}

impl From<shard::Route> for Route {
    fn from(route: shard::Route) -> Self {
        match route {
            shard::Route::Address => Route::Address,
            shard::Route::Conversation => Route::Conversation,
            shard::Route::Capability { capability, score } => Route::Capability { capability, score },
        }
    }
}

impl From<shard::Approval> for ApprovalInfo {
    fn from(it: shard::Approval) -> Self {
        let shard::Approval { id, workspace, conversation, agent, tool, arguments, since } = it;
        Self { id, workspace, conversation, agent, tool, arguments: arguments.value(), since }
    }
}
