//! BuildKit's API: sessions, and the services that its clients call over HTTP/2.
