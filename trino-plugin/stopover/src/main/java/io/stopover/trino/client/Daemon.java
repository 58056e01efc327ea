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

import org.apache.hc.core5.http.HttpHost;

import java.net.InetAddress;
import java.net.URI;
import java.util.Optional;

import static java.util.Objects.requireNonNull;

/**
 * A daemon, as this node reaches it: a configured URI and, if its name has several addresses, one
 * of them. Its certificate is verified against the configured name in any case.
 */
public record Daemon(URI uri, Optional<InetAddress> address)
{
    public Daemon
    {
        requireNonNull(uri, "uri is null");
        requireNonNull(address, "address is null");
    }

    public static Daemon of(URI uri)
    {
        return new Daemon(uri, Optional.empty());
    }

    /** The target of a connection. */
    HttpHost target()
    {
        HttpHost host = HttpHost.create(uri);
        return address
                .map(ip -> new HttpHost(
                        host.getSchemeName(), ip, host.getHostName(), host.getPort()))
                .orElse(host);
    }

    /** The URI of a route. */
    String url(String path)
    {
        return uri + path;
    }

    @Override
    public String toString()
    {
        return address
                .map(ip -> "%s (%s)".formatted(uri, ip.getHostAddress()))
                .orElseGet(uri::toString);
    }
}
