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

import com.google.common.net.InetAddresses;
import io.airlift.log.Logger;

import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.SocketException;
import java.net.URI;
import java.net.UnknownHostException;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;

import static com.google.common.collect.ImmutableSet.toImmutableSet;
import static java.util.Objects.requireNonNull;

/**
 * The daemons of the configured URIs. A name with several addresses means several daemons, as of
 * the last lookup that succeeded. Of a name with addresses of both families, only those of the
 * family that the JVM prefers count: a daemon usually has one of each.
 */
final class DaemonNames
{
    private static final Logger log = Logger.get(DaemonNames.class);

    private final List<URI> uris;
    private final DaemonSockets.Lookup dns;
    /** By name; empty until a lookup has succeeded. */
    private final Map<String, List<InetAddress>> found = new ConcurrentHashMap<>();
    private volatile Set<InetAddress> ownAddresses = ownAddresses();

    DaemonNames(List<URI> uris, DaemonSockets.Lookup dns)
    {
        this.uris = List.copyOf(uris);
        this.dns = requireNonNull(dns, "dns is null");
    }

    /** In the configured order. */
    List<Daemon> daemons()
    {
        return uris.stream().flatMap(this::daemons).distinct().toList();
    }

    private Stream<Daemon> daemons(URI uri)
    {
        List<InetAddress> addresses = found.getOrDefault(uri.getHost(), List.of());
        if (isLiteral(uri) || addresses.size() < 2) {
            return Stream.of(Daemon.of(uri));
        }
        return addresses.stream().map(address -> new Daemon(uri, Optional.of(address)));
    }

    /** Resolves all names, and the addresses of this machine; keeps old addresses on failure. */
    void lookUp()
    {
        ownAddresses = ownAddresses();
        uris.stream().filter(uri -> !isLiteral(uri)).map(URI::getHost).distinct().forEach(name -> {
            try {
                found.put(name, ofOneFamily(dns.resolve(name)));
            }
            catch (UnknownHostException e) {
                log.debug(e, "Cannot look up %s", name);
            }
        });
    }

    private static List<InetAddress> ofOneFamily(InetAddress[] addresses)
    {
        return Stream.of(addresses)
                .filter(address -> address.getClass() == addresses[0].getClass())
                .distinct()
                .sorted(Comparator.comparing(InetAddress::getHostAddress))
                .toList();
    }

    private static boolean isLiteral(URI uri)
    {
        return InetAddresses.isUriInetAddress(uri.getHost());
    }

    /** Whether this is another daemon on every machine. */
    static boolean isLoopback(URI uri)
    {
        return uri.getHost().equalsIgnoreCase("localhost")
                || (isLiteral(uri)
                        && InetAddresses.forUriString(uri.getHost()).isLoopbackAddress());
    }

    /** Whether the daemon runs on this machine, as of the last lookup. */
    boolean isOwnMachine(Daemon daemon)
    {
        if (isLoopback(daemon.uri())) {
            return true;
        }
        Set<InetAddress> own = ownAddresses;
        return addresses(daemon).stream()
                .anyMatch(address -> address.isLoopbackAddress() || own.contains(address));
    }

    private List<InetAddress> addresses(Daemon daemon)
    {
        if (daemon.address().isPresent()) {
            return List.of(daemon.address().get());
        }
        return isLiteral(daemon.uri())
                ? List.of(InetAddresses.forUriString(daemon.uri().getHost()))
                : found.getOrDefault(daemon.uri().getHost(), List.of());
    }

    private static Set<InetAddress> ownAddresses()
    {
        try {
            return NetworkInterface.networkInterfaces()
                    .flatMap(NetworkInterface::inetAddresses)
                    .collect(toImmutableSet());
        }
        catch (SocketException e) {
            log.debug(e, "Cannot list the addresses of this machine");
            return Set.of();
        }
    }

    /** The URI by which other nodes may name the same daemon. */
    static URI addressOf(Daemon daemon)
    {
        URI uri = daemon.uri();
        return daemon.address()
                .map(address -> URI.create("%s://%s%s".formatted(
                        uri.getScheme(),
                        InetAddresses.toUriString(address),
                        uri.getPort() < 0 ? "" : ":" + uri.getPort())))
                .orElse(uri);
    }
}
