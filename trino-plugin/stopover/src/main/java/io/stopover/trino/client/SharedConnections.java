/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import org.apache.hc.client5.http.HttpRoute;
import org.apache.hc.client5.http.io.ConnectionEndpoint;
import org.apache.hc.client5.http.io.HttpClientConnectionManager;
import org.apache.hc.client5.http.io.LeaseRequest;
import org.apache.hc.core5.http.protocol.HttpContext;
import org.apache.hc.core5.io.CloseMode;
import org.apache.hc.core5.util.TimeValue;
import org.apache.hc.core5.util.Timeout;

import java.io.IOException;

import static java.util.Objects.requireNonNull;

/**
 * Ignores attempts to close the connection pool: the HTTP client closes it at the first
 * {@link Error} of any request, such as "Cannot reserve direct buffer memory", and every later
 * request would fail.
 */
final class SharedConnections
        implements HttpClientConnectionManager
{
    private final HttpClientConnectionManager delegate;

    SharedConnections(HttpClientConnectionManager delegate)
    {
        this.delegate = requireNonNull(delegate, "delegate is null");
    }

    @Override
    public LeaseRequest lease(String id, HttpRoute route, Timeout timeout, Object state)
    {
        return delegate.lease(id, route, timeout, state);
    }

    @Override
    public void release(ConnectionEndpoint endpoint, Object state, TimeValue validDuration)
    {
        delegate.release(endpoint, state, validDuration);
    }

    @Override
    public void connect(ConnectionEndpoint endpoint, TimeValue timeout, HttpContext context)
            throws IOException
    {
        delegate.connect(endpoint, timeout, context);
    }

    @Override
    public void upgrade(ConnectionEndpoint endpoint, HttpContext context)
            throws IOException
    {
        delegate.upgrade(endpoint, context);
    }

    @Override
    public void close() {}

    @Override
    public void close(CloseMode mode) {}
}
