//! The resolver against clients and servers in namespaces of the test's own.
